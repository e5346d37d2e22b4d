//! The source against a scripted node: a real runtime's metadata, values encoded by an independent implementation,
//! and each way a node can be unwell.

use std::sync::Mutex;

use subxt::ext::codec::Encode as _;
use subxt::rpcs::client::{RawRpcFuture, RawRpcSubscription, RawValue, RpcClientT};

use super::*;
use crate::model::{Fault, IgnoreCode, admit};

const METADATA: &[u8] = include_bytes!("../../../tests/fixtures/chain/subtensor-spec461-v15.scale");
const GOLDEN: &str = include_str!("../../../tests/fixtures/chain/golden.json");
const FINALIZED: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

fn golden(pointer: &str) -> String {
    let golden: Json = serde_json::from_str(GOLDEN).unwrap();
    golden.pointer(pointer).and_then(Json::as_str).unwrap_or_else(|| panic!("no {pointer}")).to_owned()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.trim_start_matches("0x")).unwrap()
}

fn account(name: &str) -> [u8; 32] {
    bytes(&golden(&format!("/keys/{name}/public"))).try_into().unwrap()
}

/// What is wrong with a scripted node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Fails(&'static str),
    Hangs(&'static str),
    /// The node never ends giving keys.
    Endless,
    /// The node gives values that the metadata does not describe.
    Garbage,
    /// The node gives keys of another subnet.
    Elsewhere,
}

/// A node that has a storage and answers the calls that a reading makes, all at one block.
struct Node {
    storage: BTreeMap<Vec<u8>, Vec<u8>>,
    trouble: Trouble,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn answer(&self, method: &str, params: &Json) -> Result<Json, subxt::rpcs::Error> {
        let hash = |number: u8| format!("0x{}", hex::encode([number; 32]));
        let unknown = || subxt::rpcs::Error::Client(format!("no {method} {params}").into());
        let param = |index: usize| params.get(index).and_then(Json::as_str).unwrap_or_default();
        let is_final = params.as_array().and_then(|params| params.last()?.as_str()) == Some(FINALIZED);
        Ok(match method {
            "chain_getBlockHash" => json!(hash(0)),
            "chain_getFinalizedHead" => json!(FINALIZED),
            _ if !is_final => return Err(unknown()),
            "chain_getHeader" => json!({
                "parentHash": hash(2), "number": "0x4c4b40", "stateRoot": hash(3), "extrinsicsRoot": hash(4),
                "digest": {"logs": []},
            }),
            "state_call" => {
                let answer = match param(0) {
                    "Core_version" => (
                        "node-subtensor",
                        "node-subtensor",
                        1_u32,
                        461_u32,
                        1_u32,
                        Vec::<([u8; 8], u32)>::new(),
                        1_u32,
                    )
                        .encode(),
                    "Metadata_metadata_versions" => vec![15_u32].encode(),
                    "Metadata_metadata_at_version" => Some(METADATA.to_vec()).encode(),
                    _ => return Err(unknown()),
                };
                json!(format!("0x{}", hex::encode(answer)))
            }
            "state_getKeysPaged" => {
                let (prefix, start) = (bytes(param(0)), bytes(param(2)));
                let count = usize::try_from(params[1].as_u64().unwrap()).unwrap();
                if self.trouble == Trouble::Endless {
                    let next = start.last_chunk().map_or(0, |last| u64::from_be_bytes(*last) + 1);
                    let key = |number: u64| [&prefix[..], &[0; 32], &number.to_be_bytes()].concat();
                    let keys =
                        (next..next + count as u64).map(|number| format!("0x{}", hex::encode(key(number))));
                    return Ok(keys.collect());
                }
                if self.trouble == Trouble::Elsewhere {
                    let key = [&prefix[..32], &[15, 0], &[7; 8], &account("alice")].concat();
                    return Ok(json!([format!("0x{}", hex::encode(key))]));
                }
                let keys = self.storage.keys().filter(|key| key.starts_with(&prefix) && **key > start);
                keys.take(count).map(|key| format!("0x{}", hex::encode(key))).collect()
            }
            "state_queryStorageAt" => {
                let keys = params[0].as_array().unwrap().iter().map(|key| key.as_str().unwrap());
                let changes: Vec<Json> = keys
                    .map(|key| match (self.trouble, self.storage.get(&bytes(key))) {
                        (Trouble::Garbage, _) => json!([key, "0xff"]),
                        (_, Some(value)) => json!([key, format!("0x{}", hex::encode(value))]),
                        (_, None) => json!([key, golden("/storage_values/0/raw")]),
                    })
                    .collect();
                json!([{"block": FINALIZED, "changes": changes}])
            }
            _ => return Err(unknown()),
        })
    }
}

impl RpcClientT for Node {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(async move {
            self.calls.lock().unwrap().push(method.to_owned());
            match self.trouble {
                Trouble::Hangs(call) if call == method => std::future::pending::<()>().await,
                Trouble::Fails(call) if call == method => {
                    let secret = "wss://user:secret@node.example/key: connection reset";
                    return Err(subxt::rpcs::Error::Client(secret.into()));
                }
                _ => {}
            }
            let params = params.map_or(Json::Null, |params| serde_json::from_str(params.get()).unwrap());
            let answer = self.answer(method, &params)?;
            Ok(serde_json::value::to_raw_value(&answer).unwrap())
        })
    }

    fn subscribe_raw<'a>(
        &'a self,
        call: &'a str,
        _: Option<Box<RawValue>>,
        _: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        Box::pin(async move { Err(subxt::rpcs::Error::Client(format!("no subscription {call}").into())) })
    }
}

/// Reads the commitments from a node with this storage.
async fn read(
    storage: BTreeMap<Vec<u8>, Vec<u8>>,
    trouble: Trouble,
) -> (Result<ChainView, ChainError>, Vec<String>) {
    let calls = Arc::<Mutex<Vec<String>>>::default();
    let node = Node { storage, trouble, calls: Arc::clone(&calls) };
    let source = Subtensor::new("wss://user:secret@node.example/key".to_owned(), 14);
    let deadline = if matches!(trouble, Trouble::Hangs(_)) { Duration::from_millis(50) } else { DEADLINE };
    let view = source.read_in_time(deadline, Some(RpcClient::new(node))).await;
    let calls = calls.lock().unwrap().clone();
    (view, calls)
}

/// The key of a map's value. The hash before the account is not checked by anybody, so any eight bytes do.
fn key(prefix: &str, name: &str) -> Vec<u8> {
    [&bytes(prefix)[..34], &[7; 8], &account(name)].concat()
}

fn open_key(name: &str) -> Vec<u8> {
    key(&golden("/storage_keys/0/key"), name)
}

fn revealed_key(name: &str) -> Vec<u8> {
    key(&golden("/storage_keys/2/key"), name)
}

/// A payload as miners commit it, with an image of this name.
fn payload(image: &str, digest: u8) -> String {
    json!({"image": image, "digest": format!("sha256:{}", hex::encode([digest; 32]))}).to_string()
}

#[tokio::test]
async fn both_maps_are_read_at_one_finalized_block() {
    let locked = (0_u64, 7_u32, Compact(1_u32), 134_u8, vec![9_u8; 40], 99_u64).encode();
    let reveals = vec![
        (payload("miner/old", 1).encode(), 4_000_000_u64),
        (payload("miner/new", 2).into_bytes(), 4_999_999),
        (vec![0xff, 0xfe], 4_999_000),
    ];
    let storage = BTreeMap::from([
        // The golden key, hash and all.
        (bytes(&golden("/storage_keys/0/key")), bytes(&golden("/storage_values/1/raw"))),
        (open_key("bob"), locked),
        (revealed_key("bob"), reveals.encode()),
    ]);
    let (view, calls) = read(storage, Trouble::None).await;
    let view = view.unwrap();
    let (alice, bob) = (golden("/keys/alice/ss58"), golden("/keys/bob/ss58"));
    assert_eq!(view.block, FINALIZED);
    let open = golden("/storage_values/1/decoded/info/fields/0/BigRaw");
    let expected = [
        json!({"hotkey": bob, "block": 7}),
        json!({"hotkey": bob, "block": 4_000_000, "payload": payload("miner/old", 1)}),
        json!({"hotkey": bob, "block": 4_999_000, "payload": "\u{fffd}\u{fffd}"}),
        json!({"hotkey": bob, "block": 4_999_999, "payload": payload("miner/new", 2)}),
        json!({"hotkey": alice, "block": 5_000_001, "payload": open}),
    ];
    assert_eq!(view.entries, expected);
    assert_eq!(calls.iter().filter(|call| *call == "chain_getFinalizedHead").count(), 1, "{calls:?}");
    // Every entry ends as a row, accepted or with a reason.
    let admission = admit("r", &view.entries);
    let rows: Vec<_> =
        admission.commitments.iter().map(|row| row.ignored_code.map_or("ok", IgnoreCode::as_str)).collect();
    assert_eq!(rows, ["bad-payload", "superseded", "bad-payload", "ok", "bad-payload"]);
}

#[tokio::test]
async fn a_subnet_without_commitments_is_empty() {
    let (view, _) = read(BTreeMap::new(), Trouble::None).await;
    assert_eq!(view.unwrap().entries, Vec::<Json>::new());
}

#[tokio::test]
async fn a_small_value_and_many_hotkeys_are_read() {
    let storage = (0..300_u16).map(|number| {
        let mut account = [0; 32];
        account[..2].copy_from_slice(&number.to_be_bytes());
        let key = [&bytes(&golden("/storage_keys/1/key"))[..], &[7; 8], &account].concat();
        (key, bytes(&golden("/storage_values/0/raw")))
    });
    let (view, _) = read(storage.collect(), Trouble::None).await;
    let entries = view.unwrap().entries;
    assert_eq!(entries.len(), 300);
    let payload = bytes(&golden("/storage_values/0/decoded/info/fields/0/Raw119"));
    assert_eq!(entries[299]["payload"], String::from_utf8(payload).unwrap());
}

#[tokio::test]
async fn a_node_that_is_unwell_is_the_nodes_fault() {
    let check = async |trouble: Trouble, code: &str, words: &str| {
        let storage = BTreeMap::from([(open_key("alice"), bytes(&golden("/storage_values/0/raw")))]);
        let reason = read(storage, trouble).await.0.unwrap_err().reason();
        assert_eq!(
            (reason.fault, reason.code.as_str()),
            (Fault::Infra, code),
            "{trouble:?}: {}",
            reason.message
        );
        assert!(reason.message.contains(words), "{trouble:?}: {}", reason.message);
        assert!(!reason.message.contains("secret"), "{}", reason.message);
    };
    for call in ["chain_getBlockHash", "chain_getFinalizedHead", "state_call", "state_getKeysPaged"] {
        check(Trouble::Fails(call), "chain-node", "connection reset").await;
        check(Trouble::Hangs(call), "chain-late", "wss://node.example").await;
    }
    check(Trouble::Endless, "chain-node", "more than 4096 hotkeys").await;
    check(Trouble::Garbage, "chain-node", "open commitments").await;
    check(Trouble::Elsewhere, "chain-node", "the node gives one of 15").await;
}

#[tokio::test]
async fn an_endpoint_in_the_open_is_the_operators_fault() {
    let check = async |endpoint: &str, fault: Fault, code: &str| {
        let reason = Subtensor::new(endpoint.to_owned(), 14).commitments().await.unwrap_err().reason();
        assert_eq!((reason.fault, reason.code.as_str()), (fault, code), "{}", reason.message);
        assert!(!reason.message.contains("secret"), "{}", reason.message);
    };
    check("ws://node.example/secret", Fault::Operator, "chain-endpoint").await;
    check("not an address", Fault::Operator, "chain-endpoint").await;
    check("ws://127.0.0.1:1/secret", Fault::Infra, "chain-node").await;
}

#[test]
fn accounts_are_written_as_the_chain_writes_them() {
    for name in ["alice", "bob"] {
        let stored = Stored { account: account(name), block: 1, raw: None };
        assert_eq!(entry(&stored)["hotkey"], golden(&format!("/keys/{name}/ss58")));
    }
}

#[test]
fn payloads_are_unwrapped() {
    let json = payload("miner/server", 1);
    let hexed = |text: &[u8]| format!("0x{}", hex::encode(text));
    let check = |raw: &[u8], expected: Option<&str>| {
        let shown = String::from_utf8_lossy(raw);
        assert_eq!(payload_text(raw).as_deref(), expected, "{shown}");
    };
    let (once, upper) = (hexed(json.as_bytes()), format!("0x{}", hex::encode_upper(&json)));
    let twice = hexed(once.as_bytes());
    let thrice = hexed(twice.as_bytes());
    check(json.as_bytes(), Some(&json));
    check(format!("  {json}\n").as_bytes(), Some(&json));
    check(once.as_bytes(), Some(&json));
    check(upper.as_bytes(), Some(&json));
    check(twice.as_bytes(), Some(&json));
    check(thrice.as_bytes(), Some(&json));
    check(hexed(thrice.as_bytes()).as_bytes(), None);
    // A SCALE length in front, of the text and of its hex, and within hex.
    check(&json.encode(), Some(&json));
    check(&once.encode(), Some(&json));
    check(hexed(&json.encode()).as_bytes(), Some(&json));
    // A length that is wrong is what stands before the brace.
    check(&[b"E\x02", json.as_bytes()].concat(), Some(&json));
    // Hex within the text is the text's own.
    check(br#"{"payment_tx":"0x11"}"#, Some(r#"{"payment_tx":"0x11"}"#));
    check(b"", None);
    check(b"0x", None);
    check(b"0x7b2", None);
    check(b"0xzz", None);
    check(b"no payload", None);
    check(b"{\xff}", None);
    check(&vec![b'{'; MAX_RAW_BYTES + 1], None);
    check(&vec![b'{'; MAX_RAW_BYTES], Some(&"{".repeat(MAX_RAW_BYTES)));
}

#[test]
fn fields_are_payloads_or_not() {
    let raw = |name: &str, bytes: &[u8]| Value::unnamed_variant(name, [Value::from_bytes(bytes)]);
    let check = |fields: &[Value], expected: &[Option<&[u8]>]| {
        let found = field_payloads(&Value::unnamed_composite([Value::unnamed_composite(fields.to_vec())]));
        let expected: Vec<_> = expected.iter().map(|payload| payload.map(<[u8]>::to_vec)).collect();
        assert_eq!(found, expected);
    };
    check(&[], &[]);
    check(&[raw("Raw2", b"ab"), raw("BigRaw", b"c")], &[Some(b"ab"), Some(b"c")]);
    check(
        &[raw("Sha256", &[1; 32]), Value::unnamed_variant("ResetBondsFlag", []), raw("Raw0", b"")],
        &[Some(b"")],
    );
    let locked = Value::named_variant(
        "TimelockEncrypted",
        [("encrypted", Value::from_bytes([1])), ("reveal_round", Value::u128(9))],
    );
    check(&[locked], &[None]);
}

#[test]
fn an_endpoint_is_named_without_its_secrets() {
    let check = |endpoint: &str, expected: &str| {
        let source = Subtensor::new(endpoint.to_owned(), 14);
        assert_eq!(source.host(), expected);
        assert!(!format!("{source:?}").contains("secret"));
    };
    check("wss://entrypoint-finney.opentensor.ai:443", "wss://entrypoint-finney.opentensor.ai:443");
    check("wss://user:secret@node.example:443/v1/secret?key=secret", "wss://node.example:443");
    check("wss://a@secret@node.example", "wss://node.example");
    check("nonsense", "://nonsense");
}
