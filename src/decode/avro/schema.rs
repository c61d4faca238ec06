//! A schema of Avro's, read: types in one list, named ones resolved, so that a type may hold itself.

use hashbrown::HashMap;
use serde_json::Value;

use crate::registry;

/// Types inside each other while a schema is read, and as many as it may have in all: a sane one has some hundred.
const LEVELS_MAX: usize = 64;
const TYPES_MAX: usize = 16_384;

/// A type, by its place in the list.
pub(super) type Id = usize;

/// How a value is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wire {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(Id),
    Map(Id),
    Record(Vec<Field>),
    Union(Vec<Id>),
}

/// What a value means, where that is more than how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logical {
    None,
    Date,
    Millis,
    Micros,
    Nanos,
    Decimal(u8, i8),
    /// A time of day, a duration: no column holds it as what it is.
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Type {
    pub(super) wire: Wire,
    pub(super) logical: Logical,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) is: Id,
    /// As JSON, where there is one.
    pub(super) default: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    root: Id,
}

impl Schema {
    /// Reads a schema with what it refers to; the error is a sentence.
    pub(super) fn parse(text: &str, references: &[(String, registry::Schema)]) -> Result<Self, String> {
        let mut reader = Reader { types: Vec::new(), names: HashMap::new() };
        for (name, schema) in references {
            reader.document(&schema.text).map_err(|why| format!("'{name}', which it refers to: {why}"))?;
        }
        let root = reader.document(text)?;
        Ok(Self { types: reader.types, root })
    }

    pub(super) fn get(&self, id: Id) -> &Type {
        &self.types[id]
    }

    /// The fields of the record that each payload is; the error is a sentence.
    pub(super) fn fields(&self) -> Result<&[Field], String> {
        match &self.types[self.root].wire {
            Wire::Record(fields) => Ok(fields),
            _ => Err("it is not a record, which has fields to make columns of".to_string()),
        }
    }
}

struct Reader {
    types: Vec<Type>,
    names: HashMap<String, Id>,
}

impl Reader {
    fn document(&mut self, text: &str) -> Result<Id, String> {
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            // A primitive may stand without quotes.
            Err(_) if primitive(text.trim()).is_some() => Value::String(text.trim().to_string()),
            Err(why) => return Err(format!("it is not JSON: {why}")),
        };
        self.read(&value, "", LEVELS_MAX)
    }

    fn add(&mut self, wire: Wire, logical: Logical) -> Result<Id, String> {
        if self.types.len() >= TYPES_MAX {
            return Err(format!("it has more than {TYPES_MAX} types"));
        }
        self.types.push(Type { wire, logical });
        Ok(self.types.len() - 1)
    }

    fn read(&mut self, value: &Value, space: &str, levels: usize) -> Result<Id, String> {
        let Some(levels) = levels.checked_sub(1) else {
            return Err(format!("its types are nested deeper than {LEVELS_MAX} levels"));
        };
        match value {
            Value::String(name) => match primitive(name) {
                Some(wire) => self.add(wire, Logical::None),
                None => {
                    let known = self.names.get(&full(name, space)).or_else(|| self.names.get(name));
                    known.copied().ok_or_else(|| format!("it names the type '{name}', which is not defined"))
                }
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.read(branch, space, levels)).collect::<Result<_, _>>()?;
                self.add(Wire::Union(branches), Logical::None)
            }
            Value::Object(_) => self.complex(value, space, levels),
            _ => Err(format!("a type is {value}")),
        }
    }

    fn complex(&mut self, value: &Value, space: &str, levels: usize) -> Result<Id, String> {
        let part = |name: &str| value.get(name).ok_or_else(|| format!("a type has no '{name}'"));
        match part("type")? {
            Value::String(word) => match word.as_str() {
                "array" => {
                    let items = self.read(part("items")?, space, levels)?;
                    self.add(Wire::Array(items), Logical::None)
                }
                "map" => {
                    let values = self.read(part("values")?, space, levels)?;
                    self.add(Wire::Map(values), Logical::None)
                }
                "record" | "error" => self.record(value, space, levels),
                "enum" => {
                    let symbols = part("symbols")?.as_array().into_iter().flatten();
                    let symbols = symbols.filter_map(Value::as_str).map(str::to_string).collect();
                    let id = self.add(Wire::Enum(symbols), Logical::None)?;
                    self.name(value, space, id).map(|_| id)
                }
                "fixed" => {
                    let size = part("size")?.as_u64().and_then(|size| u32::try_from(size).ok());
                    let wire = Wire::Fixed(size.ok_or("the size of a fixed is no number")? as usize);
                    let logical = logical(value, &wire);
                    let id = self.add(wire, logical)?;
                    self.name(value, space, id).map(|_| id)
                }
                word => match primitive(word) {
                    Some(wire) => {
                        let logical = logical(value, &wire);
                        self.add(wire, logical)
                    }
                    None => self.read(&Value::String(word.to_string()), space, levels),
                },
            },
            inner => self.read(inner, space, levels),
        }
    }

    fn record(&mut self, value: &Value, space: &str, levels: usize) -> Result<Id, String> {
        // Named before its fields are read, which may name it.
        let id = self.add(Wire::Record(Vec::new()), Logical::None)?;
        let space = self.name(value, space, id)?;
        let mut fields: Vec<Field> = Vec::new();
        for field in value.get("fields").and_then(Value::as_array).ok_or("a record has no 'fields'")? {
            let name = field.get("name").and_then(Value::as_str).ok_or("a field has no name")?.to_string();
            let wrong = |why| format!("field '{name}': {why}");
            if fields.iter().any(|other| other.name == name) {
                return Err(wrong("there are two of this name".to_string()));
            }
            let is = field.get("type").ok_or_else(|| wrong("it has no type".to_string()))?;
            let is = self.read(is, &space, levels).map_err(wrong)?;
            let aliases = field.get("aliases").and_then(Value::as_array).into_iter().flatten();
            let aliases = aliases.filter_map(Value::as_str).map(str::to_string).collect();
            fields.push(Field { name, aliases, is, default: field.get("default").cloned() });
        }
        self.types[id].wire = Wire::Record(fields);
        Ok(id)
    }

    /// Notes a named type, and gives the namespace that holds inside it.
    fn name(&mut self, value: &Value, space: &str, id: Id) -> Result<String, String> {
        let name = value.get("name").and_then(Value::as_str).ok_or("a record, enum or fixed has no name")?;
        let space = value.get("namespace").and_then(Value::as_str).unwrap_or(space);
        let name = full(name, space);
        let space = name.rsplit_once('.').map_or("", |(space, _)| space).to_string();
        self.names.insert(name, id);
        Ok(space)
    }
}

fn full(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() { name.to_string() } else { format!("{space}.{name}") }
}

fn primitive(word: &str) -> Option<Wire> {
    Some(match word {
        "null" => Wire::Null,
        "boolean" => Wire::Boolean,
        "int" => Wire::Int,
        "long" => Wire::Long,
        "float" => Wire::Float,
        "double" => Wire::Double,
        "bytes" => Wire::Bytes,
        "string" => Wire::String,
        _ => return None,
    })
}

/// A logical type that does not fit how it is written does not count, as the specification has it.
fn logical(value: &Value, wire: &Wire) -> Logical {
    let Some(word) = value.get("logicalType").and_then(Value::as_str) else { return Logical::None };
    match (word, wire) {
        ("date", Wire::Int) => Logical::Date,
        ("timestamp-millis" | "local-timestamp-millis", Wire::Long) => Logical::Millis,
        ("timestamp-micros" | "local-timestamp-micros", Wire::Long) => Logical::Micros,
        ("timestamp-nanos" | "local-timestamp-nanos", Wire::Long) => Logical::Nanos,
        ("time-millis", Wire::Int) | ("time-micros", Wire::Long) | ("duration" | "uuid", Wire::Fixed(_)) => Logical::Other,
        ("decimal", Wire::Bytes | Wire::Fixed(_)) => {
            let number = |name: &str| value.get(name).and_then(Value::as_u64).and_then(|number| u8::try_from(number).ok());
            match (number("precision"), number("scale").unwrap_or(0)) {
                (Some(precision @ 1..=38), scale) if scale <= precision => Logical::Decimal(precision, scale as i8),
                _ => Logical::Other,
            }
        }
        _ => Logical::None,
    }
}
