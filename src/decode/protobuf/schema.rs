//! What a registered `.proto` file says of the messages that a table reads.

use hashbrown::{HashMap, HashSet};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::registry::proto::parse;
use crate::registry::schemas::Known;

/// Messages inside each other in a file that came as a descriptor.
const LEVELS_MAX: usize = 64;

/// The type of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Everything but enums, messages and groups.
    Scalar(Type),
    /// Its names by their numbers.
    Enum(Vec<(i32, String)>),
    /// By its full name.
    Message(String),
    /// The type's name stands in no file that there is.
    Nowhere(String),
}

/// A field of a message.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    pub(super) required: bool,
    /// Whether a value that is not there is told from one that is zero or empty.
    pub(super) has_presence: bool,
    /// Of which only the last one on the wire counts: the number of their `oneof`.
    pub(super) oneof: Option<usize>,
    /// As it stands in the text.
    pub(super) default: Option<String>,
}

/// A message.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
}

/// A file with those that it imports.
pub(super) struct Files {
    file: FileDescriptorProto,
    enums: HashMap<String, Vec<(i32, String)>>,
    messages: HashSet<String>,
}

impl Files {
    /// Reads a schema and what it refers to; the error is a sentence.
    pub(super) fn read(known: &Known) -> Result<Self, String> {
        let (mut enums, mut messages) = (HashMap::new(), HashSet::new());
        for (name, schema) in &known.references {
            let file = parse(&schema.text).map_err(|why| format!("of what it imports, {name}: {why}"))?;
            note(&file, &mut enums, &mut messages);
        }
        let file = parse(&known.schema.text)?;
        note(&file, &mut enums, &mut messages);
        Ok(Self { file, enums, messages })
    }

    /// The message at this place: in the file, and then in one another. `None`: there is none.
    pub(super) fn message(&self, path: &[i32]) -> Option<Message> {
        let (first, inner) = path.split_first()?;
        let mut message = self.file.message_type.get(usize::try_from(*first).ok()?)?;
        let mut name = full(self.file.package(), message.name());
        for index in inner {
            message = message.nested_type.get(usize::try_from(*index).ok()?)?;
            name = full(&name, message.name());
        }
        Some(self.read_message(name, message))
    }

    /// The message with this full name, if it is in the file itself; else the first one.
    pub(super) fn message_like(&self, name: &str) -> Option<Message> {
        let package = self.file.package();
        let found = self.file.message_type.iter().position(|message| full(package, message.name()) == name);
        self.message(&[found.unwrap_or(0) as i32])
    }

    fn read_message(&self, name: String, message: &DescriptorProto) -> Message {
        let is_old = self.file.syntax.as_deref().is_none_or(|syntax| syntax == "proto2");
        let fields = message.field.iter().filter_map(|field| {
            let kind = self.kind(&name, field);
            let label = field.label.and_then(|label| Label::try_from(label).ok());
            let is_message = matches!(kind, Kind::Message(_) | Kind::Nowhere(_));
            Some(Field {
                name: field.name().to_string(),
                number: u32::try_from(field.number()).ok()?,
                repeated: label == Some(Label::Repeated),
                required: label == Some(Label::Required),
                has_presence: is_old || is_message || field.proto3_optional() || field.oneof_index.is_some(),
                // One that `optional` makes has a single member, which clears no other.
                oneof: field.oneof_index.filter(|_| !field.proto3_optional()).and_then(|index| usize::try_from(index).ok()),
                default: field.default_value.clone(),
                kind,
            })
        });
        Message { fields: fields.collect(), name }
    }

    /// A name counts from where it stands outward, unless it begins with a dot.
    fn kind(&self, scope: &str, field: &FieldDescriptorProto) -> Kind {
        let declared = field.r#type.and_then(|kind| Type::try_from(kind).ok());
        if let Some(kind) = declared.filter(|kind| !matches!(kind, Type::Enum | Type::Message | Type::Group)) {
            return Kind::Scalar(kind);
        }
        let written = field.type_name();
        let found = |name: String| match self.enums.get(&name) {
            Some(symbols) => Some(Kind::Enum(symbols.clone())),
            // Those need not be imported from the registry.
            None if self.messages.contains(&name) || name.starts_with("google.protobuf.") => Some(Kind::Message(name)),
            None => None,
        };
        if let Some(name) = written.strip_prefix('.') {
            return found(name.to_string()).unwrap_or_else(|| Kind::Nowhere(name.to_string()));
        }
        let mut scope = scope;
        loop {
            if let Some(kind) = found(full(scope, written)) {
                return kind;
            }
            scope = match scope.rsplit_once('.') {
                Some((outer, _)) => outer,
                None if scope.is_empty() => return Kind::Nowhere(written.to_string()),
                None => "",
            };
        }
    }
}

type Enums = HashMap<String, Vec<(i32, String)>>;

fn note(file: &FileDescriptorProto, enums: &mut Enums, messages: &mut HashSet<String>) {
    let note_enum = |scope: &str, found: &EnumDescriptorProto, enums: &mut Enums| {
        let symbols = found.value.iter().map(|value| (value.number(), value.name().to_string()));
        enums.insert(full(scope, found.name()), symbols.collect());
    };
    file.enum_type.iter().for_each(|found| note_enum(file.package(), found, enums));
    let mut waiting: Vec<(String, &DescriptorProto, usize)> =
        file.message_type.iter().map(|message| (full(file.package(), message.name()), message, 1)).collect();
    while let Some((name, message, level)) = waiting.pop() {
        message.enum_type.iter().for_each(|found| note_enum(&name, found, enums));
        if level < LEVELS_MAX {
            waiting.extend(message.nested_type.iter().map(|inner| (full(&name, inner.name()), inner, level + 1)));
        }
        messages.insert(name);
    }
}

fn full(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") }
}
