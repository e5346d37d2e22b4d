//! Commitments from the chain itself: the pallet `Commitments` of a Subtensor node, at one finalized block.
//!
//! Both maps of the pallet are read for one subnet: what stands in the open, and what was committed under a time
//! lock and has been revealed since. Every stored value becomes an entry `{hotkey, block, payload}`, and
//! [`crate::model::admit`] says what becomes of it; what is still locked is an entry without payload. All decoding
//! goes by the metadata that the node gives for that block, by names, so that a runtime upgrade is not felt; only
//! the node's plain request-and-answer calls are used. Miners and their tools wrote payloads in several wrappings;
//! [`payload_text`] takes them off.
//!
//! A node is not trusted to be well or honest: one deadline holds for everything, answers are bounded in count
//! and bytes, an entry of another subnet is a failure, and each failure is the node's, never a miner's. What a lying
//! node can still do is lie in well-formed values. The endpoint may hold a key, so messages name its host only.
//!
//! Deliberately absent so far: several endpoints and retries, the metagraph, payment, weights. Tests run the whole
//! reading through a scripted node with a real runtime's metadata, but inside the process: the WebSocket and its TLS
//! have met no node yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value as Json, json};
use subxt::backend::LegacyBackend;
use subxt::client::OnlineClientAtBlock;
use subxt::dynamic::{Value, storage};
use subxt::ext::codec::{Compact, Decode as _};
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_value::{Composite, Primitive, ValueDef};
use subxt::rpcs::RpcClient;
use subxt::storage::StorageEntries;
use subxt::utils::AccountId32;
use subxt::{OnlineClient, SubstrateConfig};

use crate::ports::{ChainError, ChainSource, ChainView};
use crate::report::text::{error_chain, excerpt};

/// Names of the pallet and of its two maps.
const PALLET: &str = "Commitments";
const OPEN: &str = "CommitmentOf";
const REVEALED: &str = "RevealedCommitments";
/// How long a whole reading may take, connecting included.
const DEADLINE: Duration = Duration::from_secs(90);
/// Most hotkeys read of one map; a subnet has 256 neurons, and those that left are purged.
const MAX_HOTKEYS: usize = 4096;
/// Most bytes of values read of one map: a hotkey has at most ten reveals of about 1 KiB.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// A stored payload longer than this is not unwrapped. The chain holds about 1 KiB; hex doubles it each time.
const MAX_RAW_BYTES: usize = 16 * 1024;
/// How often a payload may be wrapped in hex.
const MAX_DEPTH: u32 = 3;
/// Number of characters shown of a payload that is in no known wrapping.
const MAX_SHOWN: usize = 256;

/// A node of the chain, for one subnet.
#[derive(Clone)]
pub struct Subtensor {
    endpoint: String,
    netuid: u16,
}

impl std::fmt::Debug for Subtensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subtensor")
            .field("host", &self.host())
            .field("netuid", &self.netuid)
            .finish_non_exhaustive()
    }
}

/// A stored value with its account, before anything in it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    /// The account that committed it, 32 bytes.
    account: [u8; 32],
    /// Block at which it was committed or revealed.
    block: u64,
    /// What was committed; `None` while it is locked.
    raw: Option<Vec<u8>>,
}

/// A value of the map of open commitments, as far as it is read.
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Registration {
    block: u32,
    info: CommitmentInfo,
}

#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct CommitmentInfo {
    fields: Value,
}

/// A value of the map of revealed commitments: payloads with the block of their reveal.
type Reveals = Vec<(Vec<u8>, u64)>;

type AtBlock = OnlineClientAtBlock<SubstrateConfig>;
type Keys = (u16, AccountId32);

impl Subtensor {
    /// The source over a node at a `wss://` address, or a `ws://` one of this machine.
    pub fn new(endpoint: String, netuid: u16) -> Self {
        Self { endpoint, netuid }
    }

    /// The endpoint without what may be secret in it.
    fn host(&self) -> String {
        let (scheme, rest) = self.endpoint.split_once("://").unwrap_or(("", &self.endpoint));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        excerpt(&format!("{scheme}://{host}"), 120)
    }

    fn failed(&self, attempted: &'static str, error: &dyn std::error::Error) -> ChainError {
        // Errors of the transport may repeat the whole address.
        let why = error_chain(error).replace(&self.endpoint, &self.host());
        ChainError::Node { host: self.host(), attempted, why: excerpt(&why, 400) }
    }

    fn refused(&self, attempted: &'static str, why: String) -> ChainError {
        ChainError::Node { host: self.host(), attempted, why }
    }

    async fn connect(&self) -> Result<RpcClient, ChainError> {
        let why = match subxt::rpcs::utils::url_is_secure(&self.endpoint) {
            Ok(true) => None,
            Ok(false) => Some("a node beyond this machine is read by `wss://` only"),
            Err(_) => Some("it is not an address such as `wss://host:443`"),
        };
        if let Some(why) = why {
            return Err(ChainError::Endpoint { host: self.host(), why });
        }
        RpcClient::from_insecure_url(&self.endpoint).await.map_err(|error| self.failed("connect", &error))
    }

    /// Reads everything at the block that is final now.
    async fn read(&self, node: RpcClient) -> Result<ChainView, ChainError> {
        let backend: LegacyBackend<SubstrateConfig> = LegacyBackend::builder().build(node);
        let client = OnlineClient::from_backend(Arc::new(backend)).await;
        let client = client.map_err(|error| self.failed("ask for the genesis block", &error))?;
        let at = client.at_current_block().await;
        let at = at.map_err(|error| self.failed("ask for the finalized block and its metadata", &error))?;
        let mut found = self.open(&at).await?;
        found.extend(self.revealed(&at).await?);
        // The order of both maps is that of a hash; sort, so that the same block gives the same table.
        found.sort_by_key(|stored| (stored.account, stored.block));
        let entries = found.iter().map(entry).collect();
        Ok(ChainView { block: format!("{:?}", at.block_hash()), entries })
    }

    async fn open(&self, at: &AtBlock) -> Result<Vec<Stored>, ChainError> {
        let attempted = "read the open commitments";
        let address = storage::<Keys, Registration>(PALLET, OPEN);
        let entries = at.storage().iter(address, (self.netuid,)).await;
        let entries = entries.map_err(|error| self.failed(attempted, &error))?;
        let mut found = Vec::new();
        for (account, registration) in self.collect(entries, attempted).await? {
            let block = registration.block.into();
            for raw in field_payloads(&registration.info.fields) {
                found.push(Stored { account, block, raw });
            }
        }
        Ok(found)
    }

    async fn revealed(&self, at: &AtBlock) -> Result<Vec<Stored>, ChainError> {
        let attempted = "read the revealed commitments";
        let has_reveals = at
            .storage()
            .entries()
            .any(|entry| (entry.pallet_name(), entry.entry_name()) == (PALLET, REVEALED));
        if !has_reveals {
            return Ok(Vec::new());
        }
        let entries = at.storage().iter(storage::<Keys, Reveals>(PALLET, REVEALED), (self.netuid,)).await;
        let entries = entries.map_err(|error| self.failed(attempted, &error))?;
        let mut found = Vec::new();
        for (account, reveals) in self.collect(entries, attempted).await? {
            found.extend(reveals.into_iter().map(|(raw, block)| Stored { account, block, raw: Some(raw) }));
        }
        Ok(found)
    }

    /// Decodes a map's entries by account, within the bounds.
    async fn collect<V: DecodeAsType>(
        &self,
        mut entries: StorageEntries<'_, subxt::storage::DynamicAddress<Keys, V>>,
        attempted: &'static str,
    ) -> Result<BTreeMap<[u8; 32], V>, ChainError> {
        let mut found = BTreeMap::new();
        let (mut count, mut bytes) = (0, 0);
        while let Some(stored) = entries.next().await {
            let stored = stored.map_err(|error| self.failed(attempted, &error))?;
            count += 1;
            bytes += stored.value().bytes().len();
            if count > MAX_HOTKEYS || bytes > MAX_BYTES {
                let why = format!("the node gives more than {MAX_HOTKEYS} hotkeys or {MAX_BYTES} bytes");
                return Err(self.refused(attempted, why));
            }
            let key = stored.key().and_then(|key| key.decode());
            let (netuid, account) = key.map_err(|error| self.failed(attempted, &error))?;
            if netuid != self.netuid {
                let why = format!("asked for subnet {}, the node gives one of {netuid}", self.netuid);
                return Err(self.refused(attempted, why));
            }
            let value = stored.value().decode().map_err(|error| self.failed(attempted, &error))?;
            found.insert(account.0, value);
        }
        Ok(found)
    }

    async fn read_in_time(
        &self,
        deadline: Duration,
        node: Option<RpcClient>,
    ) -> Result<ChainView, ChainError> {
        let reading = async {
            let node = match node {
                Some(node) => node,
                None => self.connect().await?,
            };
            self.read(node).await
        };
        let late = |_| ChainError::Late { host: self.host(), deadline };
        tokio::time::timeout(deadline, reading).await.map_err(late)?
    }
}

impl ChainSource for Subtensor {
    fn commitments(&self) -> BoxFuture<'_, Result<ChainView, ChainError>> {
        self.read_in_time(DEADLINE, None).boxed()
    }
}

/// What is judged of a stored value. A payload in no known wrapping is shown as it is, for the miner to see.
fn entry(stored: &Stored) -> Json {
    let hotkey = AccountId32(stored.account).to_string();
    let Some(raw) = &stored.raw else { return json!({"hotkey": hotkey, "block": stored.block}) };
    let payload = payload_text(raw).unwrap_or_else(|| excerpt(&String::from_utf8_lossy(raw), MAX_SHOWN));
    json!({"hotkey": hotkey, "block": stored.block, "payload": payload})
}

/// The payloads in the fields of a commitment: bytes in the open, `None` for what is locked. Digests and flags are
/// no payloads.
fn field_payloads(fields: &Value) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    collect_payloads(fields, &mut found);
    found
}

fn collect_payloads(value: &Value, found: &mut Vec<Option<Vec<u8>>>) {
    match &value.value {
        // `Raw0` to `Raw128`, and `BigRaw`.
        ValueDef::Variant(data) if data.name.starts_with("Raw") || data.name == "BigRaw" => {
            let mut bytes = Vec::new();
            collect_bytes(&data.values, &mut bytes);
            found.push(Some(bytes));
        }
        ValueDef::Variant(data) if data.name.starts_with("Timelock") => found.push(None),
        ValueDef::Composite(parts) => parts.values().for_each(|part| collect_payloads(part, found)),
        _ => {}
    }
}

fn collect_bytes(parts: &Composite<()>, bytes: &mut Vec<u8>) {
    for part in parts.values() {
        match &part.value {
            ValueDef::Primitive(Primitive::U128(byte)) => bytes.extend(u8::try_from(*byte)),
            ValueDef::Composite(parts) => collect_bytes(parts, bytes),
            _ => {}
        }
    }
}

/// The JSON text in a stored payload, in whatever wrapping it was committed: as it is, as `0x` and hex, behind a
/// SCALE length, or hex within hex up to three times. `None` if there is none.
pub fn payload_text(raw: &[u8]) -> Option<String> {
    if raw.len() > MAX_RAW_BYTES {
        return None;
    }
    unwrapped(raw, MAX_DEPTH)
}

/// The rule of those who read these payloads first: the text begins at the first brace, unless hex begins before.
fn unwrapped(raw: &[u8], depth: u32) -> Option<String> {
    let raw = without_length(raw);
    let brace = raw.iter().position(|byte| *byte == b'{');
    let hex_mark = raw.windows(2).position(|pair| pair == b"0x");
    match (brace, hex_mark) {
        (Some(brace), None) => text(&raw[brace..]),
        (Some(brace), Some(mark)) if brace < mark => text(&raw[brace..]),
        (_, Some(mark)) if depth > 0 => {
            let digits = &raw[mark + 2..];
            let end = digits.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(digits.len());
            unwrapped(&hex::decode(&digits[..end]).ok()?, depth - 1)
        }
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(|text| text.trim_end().to_owned())
}

/// The bytes behind a SCALE length, where there is one and it is right.
fn without_length(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    match Compact::<u32>::decode(&mut rest) {
        Ok(Compact(length)) if length as usize == rest.len() => rest,
        _ => bytes,
    }
}

#[cfg(test)]
mod tests;
