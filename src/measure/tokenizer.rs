//! The pinned tokenizer: how many tokens a text is worth, and which ones a server says it was.
//!
//! Credited tokens are the canonical segmentation of the visible text, never a server's count. The segmentation
//! that a server claims through its log probability entries is what teacher forcing scores, provided its bytes
//! are exactly the text; whether it is also the canonical one is noted beside it.
//!
//! This is the only file outside `reference` that names the `tokenizers` crate. It expects a byte-level BPE
//! with ChatML's special tokens, as Qwen's is: there a token's bytes identify the token.

use std::collections::{BTreeSet, HashMap};

use tokenizers::Tokenizer;

use super::observe::ClaimedToken;
use crate::model::RequestFlag;

/// The token that ends an answer in the ChatML format.
const END_TOKEN: &str = "<|im_end|>";

/// A longer text is first counted in parts of this many bytes: the library takes hundreds of bytes for each token of a text.
const PART_BYTES: usize = 16 << 10;

/// Longest text that is tokenised, in bytes; no answer within `max_tokens` comes near it.
const TEXT_BYTES: usize = 4 << 20;

/// Why a tokenizer cannot be used, or a text cannot be tokenised.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is not a tokenizer.
    #[error("not a tokenizer file: {0}")]
    Parse(tokenizers::Error),
    /// The vocabulary has no token that ends an answer.
    #[error("the tokenizer has no token `{END_TOKEN}`")]
    NoEndToken,
    /// The text has this many bytes, which is too long.
    #[error("the text has {0} bytes, more than can be an answer")]
    TextTooLong(usize),
    /// The tokenizer library refused the text.
    #[error("the text cannot be tokenised: {0}")]
    Encode(tokenizers::Error),
}

/// A tokenizer whose file is part of the round's inputs.
pub struct PinnedTokenizer {
    inner: Tokenizer,
    bytes_of: HashMap<u32, Vec<u8>>,
    id_of: HashMap<Vec<u8>, u32>,
    special_of: HashMap<Vec<u8>, u32>,
    end: u32,
}

impl std::fmt::Debug for PinnedTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedTokenizer")
            .field("tokens", &self.bytes_of.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// The canonical segmentation of a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segmentation {
    /// Ids of the tokens, in order.
    pub ids: Vec<u32>,
    /// Where each token ends, in bytes from the text's start; never falls.
    pub ends: Vec<usize>,
}

/// One token of an answer, to be scored by teacher forcing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerToken {
    /// Id of the token in the vocabulary.
    pub id: u32,
    /// Where the token ends, in bytes from the text's start.
    pub end: usize,
    /// Whether the token ends the answer and carries no text.
    pub is_end: bool,
    /// Log probability that the server claimed, natural logarithm; none where it claimed none.
    pub logprob: Option<f64>,
}

/// The tokens of one answer, as they are credited and as they are scored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnswerTokens {
    /// The tokens to score, in order; the end token is last where the answer stopped by itself.
    pub tokens: Vec<AnswerToken>,
    /// The canonical segmentation of the text, whose tokens are credited.
    pub canonical: Segmentation,
    /// What was noticed about the answer's tokens.
    pub flags: BTreeSet<RequestFlag>,
}

impl PinnedTokenizer {
    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// Where the file is no tokenizer, or has no end token.
    pub fn from_bytes(file: &[u8]) -> Result<Self, TokenizerError> {
        let mut inner = Tokenizer::from_bytes(file).map_err(TokenizerError::Parse)?;
        // Text of an answer holds no special tokens: where it spells one, it was spelled in ordinary ones.
        inner.set_encode_special_tokens(true);
        let end = inner.token_to_id(END_TOKEN).ok_or(TokenizerError::NoEndToken)?;
        let added = inner.get_added_tokens_decoder();
        let byte_of = byte_alphabet();
        let (mut bytes_of, mut id_of, mut special_of) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (token, id) in inner.get_vocab(true) {
            if let Some(added) = added.get(&id) {
                let map = if added.special { &mut special_of } else { &mut id_of };
                map.insert(added.content.clone().into_bytes(), id);
                bytes_of.insert(id, added.content.clone().into_bytes());
            } else if let Some(bytes) =
                token.chars().map(|c| byte_of.get(&c).copied()).collect::<Option<Vec<u8>>>()
            {
                id_of.insert(bytes.clone(), id);
                bytes_of.insert(id, bytes);
            }
        }
        Ok(Self { inner, bytes_of, id_of, special_of, end })
    }

    /// Id of the token that ends an answer.
    pub const fn end_id(&self) -> u32 {
        self.end
    }

    /// The bytes a token stands for; none for an id outside the vocabulary.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes_of.get(&id).map(Vec::as_slice)
    }

    /// Id of the ordinary token of exactly these bytes; none if there is no such token.
    pub fn id(&self, bytes: &[u8]) -> Option<u32> {
        self.id_of.get(bytes).copied()
    }

    /// The canonical segmentation of a text; special tokens in it are spelled, not meant.
    ///
    /// # Errors
    /// Where the text is too long, or the library refuses it.
    pub fn segment(&self, text: &str) -> Result<Segmentation, TokenizerError> {
        if text.len() > TEXT_BYTES {
            return Err(TokenizerError::TextTooLong(text.len()));
        }
        let encoding = self.inner.encode(text, false).map_err(TokenizerError::Encode)?;
        let ids = encoding.get_ids().to_vec();
        let mut ends = Vec::with_capacity(ids.len());
        let mut end = 0;
        for &id in &ids {
            end += self.bytes(id).map_or(0, <[u8]>::len);
            ends.push(end);
        }
        if end != text.len() {
            // A normaliser changed the text; the library's offsets still point into the original.
            let mut last = 0;
            for (end, &(_, offset)) in ends.iter_mut().zip(encoding.get_offsets()) {
                last = offset.max(last);
                *end = last;
            }
        }
        Ok(Segmentation { ids, ends })
    }

    /// Counts the tokens of a long text, part by part and not far beyond `most`: the memory that it takes is a part's. Where a part
    /// ends a token may be cut into a few. A text of less than a part is not counted: zero.
    ///
    /// # Errors
    /// As [`PinnedTokenizer::segment`].
    pub fn count_long(&self, text: &str, most: usize) -> Result<usize, TokenizerError> {
        if text.len() <= PART_BYTES {
            return Ok(0);
        }
        let (mut rest, mut count) = (text, 0);
        while !rest.is_empty() && count <= most {
            let mut end = rest.floor_char_boundary(PART_BYTES);
            if end < rest.len() {
                // A word has its space in front.
                end = rest[..end].rfind(char::is_whitespace).filter(|space| *space > 0).unwrap_or(end);
            }
            let (part, later) = rest.split_at(end);
            count += self.segment(part)?.ids.len();
            rest = later;
        }
        Ok(count)
    }

    /// Aligns an answer's text with the tokens the server claims for it.
    ///
    /// `has_stopped` says that the answer ended by itself (finish reason `stop`), so that an end token belongs to
    /// it, whether or not the server lists it.
    ///
    /// # Errors
    /// As [`PinnedTokenizer::segment`].
    pub fn tokens_of_answer(
        &self,
        text: &str,
        claimed: Option<&[ClaimedToken]>,
        has_stopped: HasStopped,
    ) -> Result<AnswerTokens, TokenizerError> {
        let canonical = self.segment(text)?;
        let mut flags = BTreeSet::new();
        let (visible, end_entry) = match claimed {
            Some([rest @ .., last]) if has_stopped == HasStopped::Yes && self.is_end_entry(last) => {
                (rest, Some(last))
            }
            Some(entries) => (entries, None),
            None => (&[][..], None),
        };
        let mut tokens = Vec::new();
        if claimed.is_none_or(<[_]>::is_empty) {
            flags.insert(RequestFlag::NoLogprobs);
        } else if let Some(ids) = self.claimed_ids(text, visible, has_stopped) {
            let mut end = 0;
            for (&id, entry) in ids.iter().zip(visible) {
                end += entry.as_bytes().len();
                tokens.push(AnswerToken {
                    id,
                    end: end.min(text.len()),
                    is_end: false,
                    logprob: entry.logprob,
                });
            }
            if end == text.len() && ids != canonical.ids {
                flags.insert(RequestFlag::NonCanonical);
            }
        } else {
            flags.insert(RequestFlag::BytesMismatch);
        }
        if tokens.is_empty() {
            tokens.extend(canonical.ids.iter().zip(&canonical.ends).map(|(&id, &end)| AnswerToken {
                id,
                end,
                is_end: false,
                logprob: None,
            }));
        }
        if has_stopped == HasStopped::Yes {
            let id = end_entry
                .and_then(|entry| self.special_of.get(entry.as_bytes()).copied())
                .unwrap_or(self.end);
            let logprob = end_entry.and_then(|entry| entry.logprob);
            tokens.push(AnswerToken { id, end: text.len(), is_end: true, logprob });
        }
        Ok(AnswerTokens { tokens, canonical, flags })
    }

    fn is_end_entry(&self, entry: &ClaimedToken) -> bool {
        entry.as_bytes().is_empty() || self.special_of.contains_key(entry.as_bytes())
    }

    /// Ids of the claimed tokens, if each is a token and together they are the text.
    fn claimed_ids(&self, text: &str, claimed: &[ClaimedToken], has_stopped: HasStopped) -> Option<Vec<u32>> {
        let spelled: Vec<u8> = claimed.iter().flat_map(ClaimedToken::as_bytes).copied().collect();
        let is_text = spelled == text.as_bytes() || is_cut_inside_a_character(&spelled, text, has_stopped);
        is_text
            .then(|| claimed.iter().map(|entry| self.id(entry.as_bytes())).collect::<Option<Vec<u32>>>())
            .flatten()
    }
}

/// Whether an answer ended by itself or was cut at the token limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasStopped {
    /// It ended by itself: the finish reason is `stop`.
    Yes,
    /// It ended in any other way.
    No,
}

/// An answer cut at its token limit may end inside a character, which the text then lacks or replaces.
fn is_cut_inside_a_character(spelled: &[u8], text: &str, has_stopped: HasStopped) -> bool {
    let whole = text.trim_end_matches('\u{fffd}');
    let rest = spelled.strip_prefix(whole.as_bytes());
    has_stopped == HasStopped::No
        && rest.is_some_and(|rest| {
            rest.len() < 4
                && std::str::from_utf8(rest).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        })
}

/// The printable alphabet in which byte-level BPE vocabularies are written (GPT-2, `bytes_to_unicode`):
/// printable Latin-1 stands for itself, each other byte for U+0100 and on, in order.
fn byte_alphabet() -> HashMap<char, u8> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..=255).filter(|&byte| is_printable(byte)).map(|byte| (char::from(byte), byte));
    let moved = ('\u{100}'..).zip((0..=255).filter(|&byte| !is_printable(byte)));
    own.chain(moved).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A byte-level BPE over all bytes with the merges `He`, `ll`, `llo`, `Ġw` and ChatML's specials.
    pub(crate) fn tiny() -> PinnedTokenizer {
        let mut alphabet: Vec<(u8, char)> = byte_alphabet().into_iter().map(|(c, b)| (b, c)).collect();
        alphabet.sort_unstable();
        let mut vocab = serde_json::Map::new();
        for (byte, symbol) in alphabet {
            vocab.insert(symbol.to_string(), byte.into());
        }
        for (id, token) in (256..).zip(["He", "ll", "llo", "Ġw"]) {
            vocab.insert(token.to_owned(), id.into());
        }
        let special = |id: u32, content: &str| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        };
        let file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [special(260, "<|endoftext|>"), special(261, "<|im_end|>")],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": ["H e", "l l", "ll o", "Ġ w"]},
        });
        PinnedTokenizer::from_bytes(file.to_string().as_bytes()).expect("tokenizer")
    }

    pub(crate) fn claim(bytes: &[&[u8]]) -> Vec<ClaimedToken> {
        let entry = |bytes: &&[u8]| ClaimedToken {
            token: String::from_utf8_lossy(bytes).into_owned(),
            logprob: Some(-0.5),
            bytes: Some(bytes.to_vec()),
            at_ns: 0,
        };
        bytes.iter().map(entry).collect()
    }

    #[test]
    fn segments_and_bytes() {
        let tokenizer = tiny();
        let hello = tokenizer.segment("Hello wé").expect("segment");
        assert_eq!(hello.ids, [256, 258, 259, 0xc3, 0xa9]);
        assert_eq!(hello.ends, [2, 5, 7, 8, 9]);
        assert_eq!(tokenizer.segment("").expect("segment"), Segmentation::default());
        assert_eq!(tokenizer.bytes(259), Some(&b" w"[..]));
        assert_eq!(tokenizer.bytes(999), None);
        assert_eq!((tokenizer.end_id(), tokenizer.id(b"llo")), (261, Some(258)));
        let spelled = tokenizer.segment("<|im_end|>").expect("segment");
        assert_eq!(spelled.ids.len(), END_TOKEN.len());
        assert!(matches!(PinnedTokenizer::from_bytes(b"{}"), Err(TokenizerError::Parse(_))));
        assert!(tokenizer.segment(&"x".repeat(TEXT_BYTES + 1)).is_err());
    }

    #[test]
    fn alignment() {
        use HasStopped::{No, Yes};
        use RequestFlag::{BytesMismatch, NoLogprobs, NonCanonical};
        let tokenizer = tiny();
        let check = |text: &str,
                     claimed: Option<&[&[u8]]>,
                     stop,
                     ids: &[u32],
                     scored: usize,
                     flags: &[RequestFlag]| {
            let claimed = claimed.map(claim);
            let answer = tokenizer.tokens_of_answer(text, claimed.as_deref(), stop).expect("answer");
            assert_eq!(answer.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), ids, "{text}");
            assert_eq!(
                answer.tokens.iter().filter(|token| token.logprob.is_some()).count(),
                scored,
                "{text}"
            );
            assert_eq!(answer.flags.into_iter().collect::<Vec<_>>(), flags, "{text}");
            assert_eq!(answer.tokens.last().map(|token| token.is_end), Some(stop == Yes));
        };
        check("Hello", Some(&[b"He", b"llo"]), No, &[256, 258], 2, &[]);
        check("Hello", Some(&[b"He", b"llo"]), Yes, &[256, 258, 261], 2, &[]);
        check("Hello", Some(&[b"He", b"llo", b"<|im_end|>"]), Yes, &[256, 258, 261], 3, &[]);
        check("Hello", Some(&[b"He", b"llo", b"<|endoftext|>"]), Yes, &[256, 258, 260], 3, &[]);
        check("Hello", Some(&[b"He", b"llo", b""]), Yes, &[256, 258, 261], 3, &[]);
        check("Hello", Some(&[b"H", b"e", b"llo"]), No, &[0x48, 0x65, 258], 3, &[NonCanonical]);
        check("Hello", Some(&[b"Hel", b"lo"]), No, &[256, 258], 0, &[BytesMismatch]);
        check("Hello", Some(&[b"", b"He", b"llo"]), No, &[256, 258], 0, &[BytesMismatch]);
        check("Hello", Some(&[b"He", b"llo", b"llo"]), No, &[256, 258], 0, &[BytesMismatch]);
        check("Hello", Some(&[b"He", b"llo", b"<|im_end|>"]), No, &[256, 258], 0, &[BytesMismatch]);
        check("Hello", None, Yes, &[256, 258, 261], 0, &[NoLogprobs]);
        check("Hello", Some(&[]), No, &[256, 258], 0, &[NoLogprobs]);
        check("He", Some(&[b"He", &[0xf0], &[0x9f]]), No, &[256, 0xf0, 0x9f], 3, &[]);
        check("He\u{fffd}", Some(&[b"He", &[0xc3]]), No, &[256, 0xc3], 2, &[]);
        check("He", Some(&[b"He", &[0xc3]]), Yes, &[256, 261], 0, &[BytesMismatch]);
    }
}
