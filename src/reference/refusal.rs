//! What the server says instead of an answer: a status and vLLM's error body.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refused request: a status and vLLM's error body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of the response.
    pub status: StatusCode,
    /// What is wrong, in vLLM's words.
    pub message: String,
    /// The kind of error, as vLLM names it.
    pub kind: &'static str,
    /// The field at fault, where it is one.
    pub param: Option<String>,
}

impl Refusal {
    /// Refuses a value that is well-formed and not allowed.
    pub fn value(param: &str, message: impl Into<String>) -> Self {
        let (message, param) = (message.into(), Some(param.to_owned()));
        Self { status: StatusCode::BAD_REQUEST, message, kind: "BadRequestError", param }
    }

    /// Refuses a field that is absent, or of another type than it should be.
    pub fn form(kind: &str, at: &str, message: &str, input: &Value) -> Self {
        let input = python(input);
        let message = format!(
            "1 validation error:\n  {{'type': '{kind}', 'loc': '{at}', 'msg': '{message}', 'input': {input}}}"
        );
        let param = Some(at.to_owned());
        Self { status: StatusCode::BAD_REQUEST, message, kind: "Bad Request", param }
    }
}

impl Refusal {
    /// Refuses a body that is not JSON.
    pub fn json(error: &serde_json::Error) -> Self {
        let at = format!("body.{}", error.column());
        let message = format!(
            "1 validation error:\n  {{'type': 'json_invalid', 'loc': '{at}', 'msg': 'JSON decode error', 'input': \
             '<dict of 0 items>', 'ctx': {{'error': '{error}'}}}}"
        );
        Self { status: StatusCode::BAD_REQUEST, message, kind: "Bad Request", param: Some(at) }
    }

    /// Tells of a fault of the server, not of the request.
    pub fn server(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
            _ => "InternalServerError",
        };
        Self { status, message: message.into(), kind, param: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.status.as_u16();
        let error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": code});
        (self.status, axum::Json(json!({ "error": error }))).into_response()
    }
}

/// The value as Python prints it, containers by their size.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{}'", text.chars().take(100).collect::<String>()),
        Value::Array(items) => format!("<list of {} items>", items.len()),
        Value::Object(fields) => format!("<dict of {} items>", fields.len()),
    }
}
