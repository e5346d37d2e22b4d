//! How a stage's file declares what the stage takes and gives.

/// Declares `Parameters`: each field with its documentation, its name under `with:`, its type and its default.
macro_rules! parameters {
    ($(#[$meta:meta])* { $( $(#[doc = $doc:literal])+ $name:literal $field:ident : $type:ty $(= $default:expr)? ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Parameters {
            $( $(#[doc = $doc])+ #[serde(rename = $name)] pub $field: $type, )*
        }

        impl Parameters {
            /// The table of inputs.
            pub(super) const INPUTS: &'static [super::InputSpec] = &[$(
                super::InputSpec {
                    name: $name,
                    kind: <$type as super::StageValue>::KIND,
                    is_required: !<$type as super::StageValue>::IS_OPTIONAL $(&& !super::declare::has_default!($default))?,
                    default: super::declare::default_of!($type $(, $default)?),
                    doc: concat!($($doc),+).trim_ascii(),
                    check: super::value::check::<$type>,
                },
            )*];
        }
    };
}

/// Declares `Output`: each field with its documentation, its name among the outputs, and its type.
macro_rules! outputs {
    ($(#[$meta:meta])* { $( $(#[doc = $doc:literal])+ $name:literal $field:ident : $type:ty ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct Output {
            $( $(#[doc = $doc])+ #[serde(rename = $name)] pub $field: $type, )*
        }

        impl Output {
            /// The table of outputs.
            pub(super) const OUTPUTS: &'static [super::OutputSpec] = &[$(
                super::OutputSpec {
                    name: $name,
                    kind: <$type as super::StageValue>::KIND,
                    doc: concat!($($doc),+).trim_ascii(),
                },
            )*];
        }
    };
}

macro_rules! has_default {
    ($default:expr) => {
        true
    };
}

macro_rules! default_of {
    ($type:ty) => {
        None
    };
    ($type:ty, $default:expr) => {
        Some((|| super::value::written::<$type>($default)) as fn() -> serde_json::Value)
    };
}

pub(super) use {default_of, has_default, outputs, parameters};
