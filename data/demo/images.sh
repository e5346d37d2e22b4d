#!/usr/bin/env bash
# Writes commitments.yml anew from the manifests in images/: run it after changing one of them.
set -euo pipefail
cd "$(dirname "$0")"
digest() { echo "sha256:$(sha256sum "images/embedded/$1.json" | cut -d' ' -f1)"; }
commitment() { # hotkey, uid, block, image, manifest
  printf '  - { hotkey: %s, uid: %s, block: %s,\n      image: embedded/%s, digest: "%s" }\n' "$1" "$2" "$3" "$4" "$(digest "$5")"
}
{
  echo "# The demo's stand-in for the chain: who committed which image, and when. Made by images.sh."
  echo "# The hotkeys are the well-known development accounts of Substrate."
  echo "block: demo"
  echo "commitments:"
  commitment 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY 1 1001 brisk brisk
  commitment 5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty 2 1002 swift swift
  commitment 5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y 3 1003 same same
  commitment 5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy 4 1004 squeezed squeezed
  commitment 5HGjWAeFDfFCWPsjFQdVV2Msvz2XtMktvgocEZcCj68kUMaw 5 1005 impostor impostor
  commitment 5CiPPseXPECbkjWCa6MnjNokrgYjMqmKndv2rSnekmSK2DjL 6 1006 stillborn stillborn
  commitment 5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY 7 1007 sleeper sleeper
  commitment 5HpG9w8EBLe5XCrbczpwq5TSXvedjrBGCwqxK1iQ7qUsSWFc 8 1008 swift-copy swift
} > commitments.yml
for image in baseline scorer; do echo "$image $(digest "$image")"; done
