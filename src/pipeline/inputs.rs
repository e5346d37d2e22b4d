//! From what a person gave and the declared inputs to the values of `inputs`.

use super::contexts::{KnownContexts, Site};
use super::definition::{InputDecl, InputType, Pipeline, texts};
use super::expr::{ExprError, Object, Status, Value};
use super::suggest;

impl Pipeline {
    /// The values of all inputs: as given (text is read by the input's type), else the default.
    ///
    /// # Errors
    /// The first input that is missing, unknown or of the wrong type.
    pub fn inputs(&self, given: &[(String, String)]) -> Result<Value, InputError> {
        if let Some((name, _)) =
            given.iter().find(|(name, _)| !self.inputs.iter().any(|input| input.name == *name))
        {
            let known = suggest::closest(name, self.inputs.iter().map(|input| input.name.as_str()));
            return Err(InputError::Unknown { name: name.clone(), known });
        }
        let mut values = Object::new();
        for input in &self.inputs {
            let text = given.iter().rev().find(|(name, _)| *name == input.name).map(|(_, text)| text);
            let value = match (text, &input.default) {
                (Some(text), _) => input.read(text)?,
                (None, Some(default)) => default.clone(),
                (None, None) if input.is_required => {
                    return Err(InputError::Missing { name: input.name.clone() });
                }
                (None, None) => input.blank(),
            };
            values.insert(&input.name, value);
        }
        Ok(Value::from(values))
    }
}

impl Pipeline {
    /// What a round is called by the pipeline's `run-name`; none where it has none, or a blank one.
    ///
    /// # Errors
    /// The first expression that fails.
    pub fn run_name(&self, known: &KnownContexts) -> Result<Option<String>, ExprError> {
        let Some(template) = &self.run_name else { return Ok(None) };
        let name = template.text(&known.at(Site::RunName, Status::Success))?;
        Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty()))
    }

    /// Name of the concurrency group of a round; none where the pipeline has none, or a blank one.
    ///
    /// # Errors
    /// The first expression that fails.
    pub fn group(&self, known: &KnownContexts) -> Result<Option<String>, ExprError> {
        let Some(concurrency) = &self.concurrency else { return Ok(None) };
        let name = concurrency.group.text(&known.at(Site::Group, Status::Success))?;
        Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty()))
    }

    /// The pipeline's `env`, by what is known before the first job.
    ///
    /// # Errors
    /// The first expression that fails.
    pub fn env(&self, known: &KnownContexts) -> Result<Object, ExprError> {
        Ok(texts(&self.env, &known.at(Site::PipelineEnv, Status::Success))?.into_iter().collect())
    }
}

/// Why the inputs of a round cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum InputError {
    #[error("the input `{name}` is required")]
    Missing { name: String },
    #[error("there is no input `{name}`{}", known.first().map(|offer| format!("; did you mean `{offer}`?")).unwrap_or_default())]
    Unknown { name: String, known: Vec<String> },
    #[error("the input `{name}` is {wanted}; `{text}` is not")]
    Type { name: String, wanted: String, text: String },
}

impl InputDecl {
    fn read(&self, text: &str) -> Result<Value, InputError> {
        let fails =
            |wanted: String| InputError::Type { name: self.name.clone(), wanted, text: text.to_owned() };
        match &self.kind {
            InputType::String => Ok(Value::from(text)),
            InputType::Number => {
                let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
                number.map(Value::Number).ok_or_else(|| fails("a number".to_owned()))
            }
            InputType::Boolean => {
                text.parse().map(Value::Bool).map_err(|_| fails("`true` or `false`".to_owned()))
            }
            InputType::Choice(options) if options.iter().any(|option| option == text) => {
                Ok(Value::from(text))
            }
            InputType::Choice(options) => Err(fails(format!("one of {}", options.join(", ")))),
        }
    }

    /// The value of an input that was neither given nor has a default.
    fn blank(&self) -> Value {
        match &self.kind {
            InputType::String | InputType::Choice(_) => Value::from(""),
            InputType::Number => Value::Number(0.0),
            InputType::Boolean => Value::Bool(false),
        }
    }
}
