//! Text to tokens and back: the tokenizer, the chat template, and answers put together piece by piece.
//!
//! The template is Qwen2.5's ChatML with a short system prompt of our own. Tools are deliberately absent.

use tokenizers::Tokenizer;

/// The system prompt of a chat that has none.
pub const SYSTEM: &str = "You answer in plain words.";

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What that speaker says.
    pub content: String,
}

/// How the rendered chat ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatEnding {
    /// It ends with the head of the assistant's next message.
    Generation,
    /// It ends after the last message, which is complete.
    Closed,
    /// It ends inside the last message, which the model continues.
    Open,
}

/// Renders a chat as the text that the model was trained on.
pub fn render(messages: &[Message], ending: ChatEnding) -> String {
    let mut text = String::new();
    if messages.first().is_none_or(|first| first.role != "system") {
        text.push_str("<|im_start|>system\n");
        text.push_str(SYSTEM);
        text.push_str("<|im_end|>\n");
    }
    for (index, message) in messages.iter().enumerate() {
        text.push_str("<|im_start|>");
        text.push_str(&message.role);
        text.push('\n');
        text.push_str(&message.content);
        if ending != ChatEnding::Open || index + 1 < messages.len() {
            text.push_str("<|im_end|>\n");
        }
    }
    if ending == ChatEnding::Generation {
        text.push_str("<|im_start|>assistant\n");
    }
    text
}

/// The tokenizer with each token's text at hand.
#[derive(Debug)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    pieces: Vec<String>,
}

impl Vocabulary {
    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// Fails when they are no tokenizer.
    pub fn new(json: &[u8]) -> Result<Self, tokenizers::Error> {
        let tokenizer = Tokenizer::from_bytes(json)?;
        let count = tokenizer.get_vocab_size(true) as u32;
        let pieces = (0..count).map(|id| tokenizer.decode(&[id], false)).collect::<Result<_, _>>()?;
        Ok(Self { tokenizer, pieces })
    }

    /// Number of token ids in the vocabulary.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether the vocabulary has no token ids.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Token ids of a text, in which the special tokens' names stand for themselves.
    ///
    /// # Errors
    /// Fails when the tokenizer does.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        Ok(self.tokenizer.encode(text, false)?.get_ids().to_vec())
    }

    /// The text of tokens; special tokens are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }

    /// The text of tokens, special ones included.
    pub fn decode_all(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, false).unwrap_or_default()
    }

    /// The text of one token; a part of a character reads as U+FFFD.
    pub fn piece(&self, id: u32) -> &str {
        self.pieces.get(id as usize).map_or("", String::as_str)
    }

    /// The token as the tokenizer's file spells it.
    pub fn raw(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_default()
    }
}

/// Puts an answer's text together from its tokens; holds back what may still change.
#[derive(Debug)]
pub struct Assembler {
    stops: Vec<String>,
    incomplete: Vec<u32>,
    text: String,
    sent: usize,
}

impl Assembler {
    /// An empty answer that ends before the first of `stops`.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, incomplete: Vec::new(), text: String::new(), sent: 0 }
    }

    /// Adds a token; returns the stop string that the text now contains, cut off together with what follows it.
    pub fn push(&mut self, vocabulary: &Vocabulary, id: u32) -> Option<String> {
        self.incomplete.push(id);
        let piece = vocabulary.decode(&self.incomplete);
        // Four bytes are the longest character: a longer tail is not the beginning of one.
        if piece.ends_with('\u{fffd}') && self.incomplete.len() < 4 {
            return None;
        }
        self.incomplete.clear();
        self.text.push_str(&piece);
        let found = self.stops.iter().filter_map(|stop| Some((self.text.find(stop.as_str())?, stop))).min();
        let (at, stop) = found.map(|(at, stop)| (at, stop.clone()))?;
        self.text.truncate(at);
        Some(stop)
    }

    /// Takes the text that is new and cannot become part of a stop string.
    pub fn take(&mut self) -> String {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let mut end = self.text.len().saturating_sub(longest.saturating_sub(1)).max(self.sent);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        self.slice(end)
    }

    /// Takes all the text that has not been taken: the answer is over.
    pub fn finish(&mut self, vocabulary: &Vocabulary) -> String {
        let rest = vocabulary.decode(&std::mem::take(&mut self.incomplete));
        self.text.push_str(&rest);
        self.slice(self.text.len())
    }

    fn slice(&mut self, end: usize) -> String {
        let start = self.sent.min(end);
        self.sent = end;
        self.text[start..end].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary::new(include_bytes!("../../data/reference/tokenizer.json")).unwrap()
    }

    #[test]
    fn a_chat_renders_as_the_template_does() {
        let user = Message { role: "user".into(), content: "Hi".into() };
        let head = "<|im_start|>system\nYou answer in plain words.<|im_end|>\n<|im_start|>user\nHi";
        assert_eq!(render(std::slice::from_ref(&user), ChatEnding::Open), head);
        assert_eq!(
            render(std::slice::from_ref(&user), ChatEnding::Generation),
            format!("{head}<|im_end|>\n<|im_start|>assistant\n")
        );
        let system = Message { role: "system".into(), content: "S".into() };
        assert_eq!(render(&[system], ChatEnding::Closed), "<|im_start|>system\nS<|im_end|>\n");
    }

    #[test]
    fn every_text_survives_the_tokenizer() {
        let vocabulary = vocabulary();
        for text in ["", " two  spaces\n", "née Tölo 123", "日本 🦀 \u{0}", "<|im_start|>user"] {
            let ids = vocabulary.encode(text).unwrap();
            assert_eq!(vocabulary.decode_all(&ids), text);
        }
    }

    #[test]
    fn characters_wait_until_they_are_whole() {
        let vocabulary = vocabulary();
        let ids = vocabulary.encode("a 🦀 b").unwrap();
        let mut assembler = Assembler::new(Vec::new());
        let mut parts = Vec::new();
        for id in ids {
            assert_eq!(assembler.push(&vocabulary, id), None);
            parts.push(assembler.take());
        }
        parts.push(assembler.finish(&vocabulary));
        assert_eq!(parts.concat(), "a 🦀 b");
        assert!(parts.iter().all(|part| !part.contains('\u{fffd}')), "{parts:?}");
    }

    #[test]
    fn text_ends_before_a_stop_string() {
        let vocabulary = vocabulary();
        let mut assembler = Assembler::new(vec!["END".into()]);
        let mut text = String::new();
        let mut stop = None;
        for id in vocabulary.encode("one EN two END three").unwrap() {
            stop = assembler.push(&vocabulary, id);
            text += &assembler.take();
            if stop.is_some() {
                break;
            }
        }
        text += &assembler.finish(&vocabulary);
        assert_eq!((text.as_str(), stop.as_deref()), ("one EN two ", Some("END")));
    }
}
