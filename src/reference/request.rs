//! Request bodies to checked requests, with vLLM's words for what is wrong with them.
//!
//! Two steps: bytes to a JSON object, object to [`Chat`] or [`Completion`]. Fields that this server cannot honour are
//! refused when they would change the answer; fields it does not know are ignored, as vLLM does. Names of models,
//! lengths against the context, and token ids are checked by `server`, which knows them.

use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::text::{ChatEnding, Message};

/// Most top logprobs that may be asked for at one position.
const MOST_LOGPROBS: i64 = 20;
/// Most stop strings that a request may have.
const MOST_STOPS: usize = 16;

/// What both kinds of generation request share.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Name of the model, if given.
    pub model: Option<String>,
    /// Most tokens to answer with, if given.
    pub max_tokens: Option<usize>,
    /// Temperature of the sampler; 0 is greedy.
    pub temperature: f64,
    /// Seed of the sampler.
    pub seed: u64,
    /// Whether to go on after the end token.
    pub ignore_eos: bool,
    /// Texts that end the answer when they appear in it.
    pub stops: Vec<String>,
    /// Number of top logprobs for each answer token, where logprobs are wanted.
    pub logprobs: Option<usize>,
    /// Number of top logprobs for each prompt token, where prompt logprobs are wanted.
    pub prompt_logprobs: Option<usize>,
    /// Whether tokens are named `token_id:N` in logprobs.
    pub as_token_ids: bool,
    /// What the stream reports; none if the answer is not streamed.
    pub stream: Option<StreamOptions>,
}

/// What a stream reports beside the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Whether a last chunk carries the usage.
    pub include_usage: bool,
    /// Whether every chunk carries the usage so far.
    pub continuous_usage: bool,
}

/// A request to `/v1/chat/completions`.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// The messages of the chat so far, in order.
    pub messages: Vec<Message>,
    /// How the rendered chat ends.
    pub ending: ChatEnding,
    /// How the answer is generated.
    pub generation: Generation,
}

/// The prompt of a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompletionPrompt {
    /// The prompt is text.
    Text(String),
    /// The prompt is token ids.
    Tokens(Vec<u32>),
}

/// A request to `/v1/completions`.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The prompt that is continued.
    pub prompt: CompletionPrompt,
    /// How the answer is generated.
    pub generation: Generation,
}

/// A request to `/tokenize`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenize {
    /// The text to tokenise.
    pub text: TokenizeText,
    /// Whether the tokens' own spellings are wanted.
    pub with_spellings: bool,
}

/// The text that `/tokenize` is given.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizeText {
    /// A plain text.
    Prompt(String),
    /// A chat, which is rendered first.
    Chat(Vec<Message>, ChatEnding),
}

/// The fields of one JSON object.
pub struct BodyFields(Map<String, Value>);

impl BodyFields {
    /// Reads a body.
    ///
    /// # Errors
    /// Refuses what is not a JSON object.
    pub fn new(body: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(other) => Err(Refusal::form(
                "model_attributes_type",
                "body",
                "Input should be a valid dictionary",
                &other,
            )),
            Err(error) => Err(Refusal::json(&error)),
        }
    }

    /// The field of this name, unless it is absent or null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn missing(&self, name: &str) -> Refusal {
        Refusal::form("missing", &format!("body.{name}"), "Field required", &Value::Object(self.0.clone()))
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        (kind, noun): (&str, &str),
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || {
            Refusal::form(kind, &format!("body.{name}"), &format!("Input should be a valid {noun}"), value)
        };
        read(value).map(Some).ok_or_else(wrong)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.typed(name, ("bool_type", "boolean"), Value::as_bool)
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.typed(name, ("int_type", "integer"), Value::as_i64)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        self.typed(name, ("float_type", "number"), Value::as_f64)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        self.typed(name, ("string_type", "string"), Value::as_str)
    }

    fn list(&self, name: &str) -> Result<Option<&Vec<Value>>, Refusal> {
        self.typed(name, ("list_type", "list"), Value::as_array)
    }

    /// Reads the name of the model, if given.
    ///
    /// # Errors
    /// Refuses what is not a text.
    pub fn model(&self) -> Result<Option<String>, Refusal> {
        Ok(self.text("model")?.map(str::to_owned))
    }

    /// Reads the token ids that are to be turned back to text.
    ///
    /// # Errors
    /// Refuses anything else.
    pub fn tokens(&self) -> Result<Vec<u32>, Refusal> {
        let items = self.list("tokens")?.ok_or_else(|| self.missing("tokens"))?;
        ids("tokens", items)
    }

    /// Reads a request to `/tokenize`.
    ///
    /// # Errors
    /// Refuses a body with neither prompt nor messages, or with fields of another type.
    pub fn tokenize(&self) -> Result<Tokenize, Refusal> {
        let text = if self.get("messages").is_some() {
            TokenizeText::Chat(self.messages()?, self.ending()?)
        } else {
            TokenizeText::Prompt(self.text("prompt")?.ok_or_else(|| self.missing("prompt"))?.to_owned())
        };
        Ok(Tokenize { text, with_spellings: self.flag("return_token_strs")?.unwrap_or(false) })
    }

    /// Reads a chat request.
    ///
    /// # Errors
    /// Refuses fields of another type and values that are not allowed.
    pub fn chat(&self) -> Result<Chat, Refusal> {
        let (messages, ending) = (self.messages()?, self.ending()?);
        let is_wanted = self.flag("logprobs")?.unwrap_or(false);
        let top = self.integer("top_logprobs")?;
        if top.is_some_and(|top| top > 0) && !is_wanted {
            let message = "when using `top_logprobs`, `logprobs` must be set to true.";
            return Err(Refusal::value("top_logprobs", message));
        }
        let logprobs = if is_wanted { Some(top.unwrap_or(0)) } else { None };
        let max_tokens = match self.integer("max_completion_tokens")? {
            None => self.integer("max_tokens")?,
            some => some,
        };
        if let Some(count) = max_tokens.filter(|count| *count < 1) {
            return Err(too_few(count, 1));
        }
        Ok(Chat { messages, ending, generation: self.generation(max_tokens, logprobs)? })
    }

    /// Reads a completion request.
    ///
    /// # Errors
    /// Refuses fields of another type and values that are not allowed.
    pub fn completion(&self) -> Result<Completion, Refusal> {
        let prompt = match self.get("prompt").ok_or_else(|| self.missing("prompt"))? {
            Value::String(text) => CompletionPrompt::Text(text.clone()),
            Value::Array(items) if items.iter().all(Value::is_number) => {
                CompletionPrompt::Tokens(ids("prompt", items)?)
            }
            Value::Array(_) => return Err(Refusal::value("prompt", "one prompt at a time, please")),
            other => {
                return Err(Refusal::form(
                    "string_type",
                    "body.prompt",
                    "Input should be a valid string",
                    other,
                ));
            }
        };
        let max_tokens = self.integer("max_tokens")?.unwrap_or(16);
        if max_tokens < 0 {
            return Err(too_few(max_tokens, 0));
        }
        let logprobs = self.integer("logprobs")?;
        Ok(Completion { prompt, generation: self.generation(Some(max_tokens), logprobs)? })
    }

    fn generation(&self, max_tokens: Option<i64>, logprobs: Option<i64>) -> Result<Generation, Refusal> {
        let stream = self.stream()?;
        let prompt_logprobs = self.integer("prompt_logprobs")?;
        if prompt_logprobs.is_some() && stream.is_some() {
            let message =
                "`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)";
            return Err(Refusal::value("prompt_logprobs", message));
        }
        let temperature = self.number("temperature")?.unwrap_or(0.0);
        if temperature < 0.0 {
            let message = format!(
                "temperature must be non-negative, got {temperature:?}. (parameter=temperature, \
                 value={temperature:?})"
            );
            return Err(Refusal::value("temperature", message));
        }
        self.refuse_unsupported(temperature)?;
        Ok(Generation {
            model: self.model()?,
            max_tokens: max_tokens.map(|count| count.unsigned_abs() as usize),
            temperature,
            seed: self.integer("seed")?.unwrap_or(0).cast_unsigned(),
            ignore_eos: self.flag("ignore_eos")?.unwrap_or(false),
            stops: self.stops()?,
            logprobs: logprob_count(logprobs, ("logprobs", "sample"))?,
            prompt_logprobs: logprob_count(prompt_logprobs, ("prompt_logprobs", "prompt"))?,
            as_token_ids: self.flag("return_tokens_as_token_ids")?.unwrap_or(false),
            stream,
        })
    }

    /// Refuses fields that would change the answer and that the sampler does not know.
    fn refuse_unsupported(&self, temperature: f64) -> Result<(), Refusal> {
        let neutral: [(&str, f64); 8] = [
            ("n", 1.0),
            ("best_of", 1.0),
            ("frequency_penalty", 0.0),
            ("presence_penalty", 0.0),
            ("repetition_penalty", 1.0),
            ("top_p", 1.0),
            ("top_k", 0.0),
            ("min_p", 0.0),
        ];
        for (name, only) in neutral {
            let is_for_sampling = matches!(name, "top_p" | "top_k" | "min_p");
            let value = self.number(name)?.unwrap_or(only);
            let is_off = value.total_cmp(&only).is_eq() || (name == "top_k" && value < 0.0);
            if !(is_off || is_for_sampling && temperature <= 0.0) {
                let message = format!("{name}={value} is not supported. (parameter={name}, value={value})");
                return Err(Refusal::value(name, message));
            }
        }
        Ok(())
    }

    fn stream(&self) -> Result<Option<StreamOptions>, Refusal> {
        let is_streamed = self.flag("stream")?.unwrap_or(false);
        let kind = ("model_attributes_type", "dictionary");
        let options = self.typed("stream_options", kind, Value::as_object)?;
        match (is_streamed, options) {
            (false, Some(_)) => {
                let message = "Stream options can only be defined when `stream=True`.";
                Err(Refusal::value("stream_options", message))
            }
            (false, None) => Ok(None),
            (true, None) => Ok(Some(StreamOptions::default())),
            (true, Some(options)) => {
                let options = Self(options.clone());
                let include_usage = options.flag("include_usage")?.unwrap_or(false);
                let continuous = options.flag("continuous_usage_stats")?.unwrap_or(false);
                Ok(Some(StreamOptions { include_usage, continuous_usage: include_usage && continuous }))
            }
        }
    }

    fn stops(&self) -> Result<Vec<String>, Refusal> {
        let wrong = |value: &Value| {
            Refusal::form("string_type", "body.stop", "Input should be a valid string", value)
        };
        let stops = match self.get("stop") {
            None => Vec::new(),
            Some(Value::String(stop)) => vec![stop.clone()],
            Some(Value::Array(items)) => {
                let text = |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| wrong(item));
                items.iter().map(text).collect::<Result<_, _>>()?
            }
            Some(other) => return Err(wrong(other)),
        };
        if stops.len() > MOST_STOPS || stops.iter().any(String::is_empty) {
            return Err(Refusal::value("stop", format!("stop takes up to {MOST_STOPS} non-empty strings")));
        }
        Ok(stops)
    }

    fn messages(&self) -> Result<Vec<Message>, Refusal> {
        let items = self.list("messages")?.ok_or_else(|| self.missing("messages"))?;
        if items.is_empty() {
            return Err(Refusal::value("messages", "messages must not be empty"));
        }
        items.iter().enumerate().map(|(index, item)| message(index, item)).collect()
    }

    fn ending(&self) -> Result<ChatEnding, Refusal> {
        let is_open = self.flag("continue_final_message")?.unwrap_or(false);
        match (self.flag("add_generation_prompt")?, is_open) {
            (Some(true), true) => {
                let message = "Cannot set both `continue_final_message` and `add_generation_prompt` to True.";
                Err(Refusal::value("continue_final_message", message))
            }
            (_, true) => Ok(ChatEnding::Open),
            (Some(false), false) => Ok(ChatEnding::Closed),
            (_, false) => Ok(ChatEnding::Generation),
        }
    }
}

/// Reads one message, whose content is a text or a list of text parts.
fn message(index: usize, item: &Value) -> Result<Message, Refusal> {
    let at = |name: &str| format!("body.messages.{index}.{name}");
    let role = item.get("role").and_then(Value::as_str);
    let role = role.ok_or_else(|| Refusal::form("missing", &at("role"), "Field required", item))?;
    let content = match item.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_owned);
            let parts: Option<Vec<String>> = parts.iter().map(text).collect();
            let wrong = || Refusal::value("messages", "only text parts are supported in a message");
            parts.ok_or_else(wrong)?.join("\n")
        }
        Some(other) => {
            return Err(Refusal::form(
                "string_type",
                &at("content"),
                "Input should be a valid string",
                other,
            ));
        }
    };
    Ok(Message { role: role.to_owned(), content })
}

fn ids(name: &str, items: &[Value]) -> Result<Vec<u32>, Refusal> {
    let id = |item: &Value| {
        let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
        let wrong =
            || Refusal::form("int_type", &format!("body.{name}"), "Input should be a valid integer", item);
        id.ok_or_else(wrong)
    };
    items.iter().map(id).collect()
}

fn too_few(count: i64, least: i64) -> Refusal {
    let message =
        format!("max_tokens must be at least {least}, got {count}. (parameter=max_tokens, value={count})");
    Refusal::value("max_tokens", message)
}

fn logprob_count(count: Option<i64>, (name, noun): (&str, &str)) -> Result<Option<usize>, Refusal> {
    match count {
        Some(count) if count > MOST_LOGPROBS => Err(Refusal::value(
            name,
            format!(
                "Requested {noun} logprobs of {count}, which is greater than max allowed: {MOST_LOGPROBS} \
                 (parameter={name}, value={count})"
            ),
        )),
        Some(count) if count < 0 => Err(Refusal::value(
            name,
            format!("{name} must be non-negative, got {count}. (parameter={name}, value={count})"),
        )),
        count => Ok(count.map(|count| count.unsigned_abs() as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> (String, &'static str, Option<String>) {
        let refusal = BodyFields::new(body.as_bytes()).and_then(|fields| fields.chat()).unwrap_err();
        (refusal.message, refusal.kind, refusal.param)
    }

    #[test]
    fn refusals_name_the_field() {
        let with =
            |more: &str| refusal(&format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{more}}}"#));
        for (more, param, text) in [
            (r#""logprobs":true,"top_logprobs":50"#, "logprobs", "greater than max allowed: 20"),
            (r#""top_logprobs":5"#, "top_logprobs", "must be set to true"),
            (
                r#""temperature":-1"#,
                "temperature",
                "non-negative, got -1.0. (parameter=temperature, value=-1.0)",
            ),
            (r#""stream":true,"prompt_logprobs":2"#, "prompt_logprobs", "not available when `stream=True`"),
            (r#""stream_options":{}"#, "stream_options", "only be defined"),
            (r#""max_tokens":0"#, "max_tokens", "at least 1, got 0"),
            (r#""max_tokens":"5""#, "body.max_tokens", "'type': 'int_type'"),
            (r#""n":2"#, "n", "not supported"),
            (r#""temperature":1,"top_p":0.5"#, "top_p", "not supported"),
            (r#""stop":[1]"#, "body.stop", "string_type"),
            (
                r#""continue_final_message":true,"add_generation_prompt":true"#,
                "continue_final_message",
                "both",
            ),
        ] {
            let (message, _, named) = with(more);
            assert_eq!(named.as_deref(), Some(param), "{more}: {message}");
            assert!(message.contains(text), "{more}: {message}");
        }
        let (message, kind, param) = refusal(r#"{"messages":"bad"}"#);
        assert!(message.ends_with("'msg': 'Input should be a valid list', 'input': 'bad'}"), "{message}");
        assert_eq!((kind, param.as_deref()), ("Bad Request", Some("body.messages")));
        assert!(refusal("{bad json").0.contains("'json_invalid'"));
        assert!(refusal("[]").0.contains("dictionary"));
        assert!(refusal("{}").0.contains("Field required"));
    }

    #[test]
    fn absent_fields_have_defaults() {
        let body = br#"{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"top_p":0.9}"#;
        let chat = BodyFields::new(body).unwrap().chat().unwrap();
        assert_eq!(chat.ending, ChatEnding::Generation);
        assert_eq!(chat.messages[0].content, "x");
        assert_eq!((chat.generation.logprobs, chat.generation.stream), (None, None));
    }
}
