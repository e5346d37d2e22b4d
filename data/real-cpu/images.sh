#!/usr/bin/env bash
# Writes commitments.yml anew from the manifests in images/: run it after changing one of them.
set -euo pipefail
cd "$(dirname "$0")"
digest() { echo "sha256:$(sha256sum "images/real/$1.json" | cut -d' ' -f1)"; }
commitment() { # hotkey, uid, block, image
  printf '  - { hotkey: %s, uid: %s, block: %s,\n      image: real/%s, digest: "%s" }\n' "$1" "$2" "$3" "$4" "$(digest "$4")"
}
{
  echo "# The stand-in for the chain of pipelines/real-cpu.yml: who committed which image, and when. Made by images.sh."
  echo "# The hotkeys are the well-known development accounts of Substrate."
  echo "block: real-cpu"
  echo "commitments:"
  commitment 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY 1 1001 llama-cpp
  commitment 5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty 2 1002 vllm-again
} > commitments.yml
# For the pipeline, which names the baseline and the scorer.
echo "vllm $(digest vllm)"
