//! Bounds a SCALE value before it is decoded.
//!
//! The node sends both the types and the bytes. A decoder that believes them can be told of four
//! thousand million elements in five bytes, of elements that take no bytes, or of a type that
//! contains itself; it allocates or recurses until the process dies. This walk reads the bytes as
//! the decoder will, allocates nothing that the metadata does not already hold, and stops at a depth
//! and at a number of nodes. What passes can be decoded.

use subxt::Metadata;
use subxt::ext::scale_type_resolver::{
    BitsOrderFormat, BitsStoreFormat, FieldIter, PathIter, Primitive, ResolvedTypeVisitor,
    TypeResolver as _, UnhandledKind, VariantIter,
};

/// The longest value that is decoded. The metagraph of a full subnet takes about 100 KiB.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// The most nodes of a decoded value; each takes some 70 bytes of memory. A full subnet has 100,000.
const MAX_NODES: usize = 1 << 20;

/// The deepest nesting. The metagraph has 7 levels.
const MAX_DEPTH: u32 = 32;

/// Why a value is not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unwalkable {
    #[error("{0} bytes are more than the {MAX_BYTES} that are decoded")]
    TooLong(usize),
    #[error("it ends too early")]
    TooShort,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    #[error("it has more than {MAX_NODES} parts")]
    TooManyNodes,
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("its type {0} is not in the metadata")]
    UnknownType(u32),
    #[error("it has a variant {0} that its type does not have")]
    UnknownVariant(u8),
    #[error("it has a part of a kind that nothing here has")]
    Unsupported,
}

/// Checks that `bytes` are one whole value of the type `id`, within the bounds.
pub(super) fn walk(bytes: &[u8], id: u32, metadata: &Metadata) -> Result<(), Unwalkable> {
    if bytes.len() > MAX_BYTES {
        return Err(Unwalkable::TooLong(bytes.len()));
    }
    let mut walk = Walk { rest: bytes, nodes: 0, metadata };
    walk.value(id, 0)?;
    match walk.rest.len() {
        0 => Ok(()),
        left => Err(Unwalkable::LeftOver(left)),
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    nodes: usize,
    metadata: &'a Metadata,
}

impl Walk<'_> {
    fn value(&mut self, id: u32, depth: u32) -> Result<(), Unwalkable> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Unwalkable::TooManyNodes);
        }
        if depth > MAX_DEPTH {
            return Err(Unwalkable::TooDeep);
        }
        let kind = self.metadata.types().resolve_type(id, Kinds);
        match kind.map_err(|_not_there| Unwalkable::UnknownType(id))? {
            Kind::Fixed(size) => self.skip(size),
            Kind::Text => {
                let length = self.length()?;
                self.skip(length)
            }
            Kind::Compact => self.compact().map(drop),
            Kind::Parts(ids) => self.all(&ids, depth),
            Kind::Choice(variants) => {
                let index = self.byte()?;
                let chosen = variants.iter().find(|(known, _)| *known == index);
                let (_, ids) = chosen.ok_or(Unwalkable::UnknownVariant(index))?;
                self.all(ids, depth)
            }
            Kind::Repeated(id, count) => {
                let count = count.map_or_else(|| self.length(), Ok)?;
                for _ in 0..count {
                    self.value(id, depth + 1)?;
                }
                Ok(())
            }
            Kind::NotFound => Err(Unwalkable::UnknownType(id)),
            Kind::Unsupported => Err(Unwalkable::Unsupported),
        }
    }

    fn all(&mut self, ids: &[u32], depth: u32) -> Result<(), Unwalkable> {
        ids.iter().try_for_each(|id| self.value(*id, depth + 1))
    }

    fn skip(&mut self, count: usize) -> Result<(), Unwalkable> {
        self.rest = self.rest.get(count..).ok_or(Unwalkable::TooShort)?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Unwalkable> {
        let (first, rest) = self.rest.split_first().ok_or(Unwalkable::TooShort)?;
        self.rest = rest;
        Ok(*first)
    }

    fn length(&mut self) -> Result<usize, Unwalkable> {
        // A length beyond the bytes that there can be ends in one of the bounds anyway.
        self.compact().map(|length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A compact number: the two low bits of the first byte say how many bytes it has.
    fn compact(&mut self) -> Result<u128, Unwalkable> {
        let first = self.byte()?;
        let more = match first & 0b11 {
            0 => 0,
            1 => 1,
            2 => 3,
            _ => usize::from(first >> 2) + 4,
        };
        let mut number = if first & 0b11 == 3 { 0 } else { u128::from(first >> 2) };
        let mut shift = if first & 0b11 == 3 { 0 } else { 6 };
        for _ in 0..more {
            let byte = u128::from(self.byte()?);
            // Beyond 16 bytes nothing of it is kept; no decoder takes such a number.
            number |= byte.checked_shl(shift).unwrap_or(0);
            shift += 8;
        }
        Ok(number)
    }
}

/// What the walk needs to know of a type.
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A length and so many bytes.
    Text,
    /// A compact number.
    Compact,
    /// These, one after the other.
    Parts(Vec<u32>),
    /// One byte, and the parts that it chooses.
    Choice(Vec<(u8, Vec<u32>)>),
    /// So many of one type, or as many as a length before them says.
    Repeated(u32, Option<usize>),
    NotFound,
    Unsupported,
}

struct Kinds;

impl<'r> ResolvedTypeVisitor<'r> for Kinds {
    type TypeId = u32;
    type Value = Kind;

    fn visit_unhandled(self, _: UnhandledKind) -> Kind {
        Kind::Unsupported
    }

    fn visit_not_found(self) -> Kind {
        Kind::NotFound
    }

    fn visit_composite<P, F>(self, _: P, fields: F) -> Kind
    where
        P: PathIter<'r>,
        F: FieldIter<'r, u32>,
    {
        Kind::Parts(fields.map(|field| field.id).collect())
    }

    fn visit_variant<P, F, V>(self, _: P, variants: V) -> Kind
    where
        P: PathIter<'r>,
        F: FieldIter<'r, u32>,
        V: VariantIter<'r, F>,
    {
        let parts = |fields: F| fields.map(|field| field.id).collect();
        Kind::Choice(variants.map(|variant| (variant.index, parts(variant.fields))).collect())
    }

    fn visit_sequence<P: PathIter<'r>>(self, _: P, id: u32) -> Kind {
        Kind::Repeated(id, None)
    }

    fn visit_array(self, id: u32, length: usize) -> Kind {
        Kind::Repeated(id, Some(length))
    }

    fn visit_tuple<I: ExactSizeIterator<Item = u32>>(self, ids: I) -> Kind {
        Kind::Parts(ids.collect())
    }

    fn visit_primitive(self, primitive: Primitive) -> Kind {
        Kind::Fixed(match primitive {
            Primitive::Str => return Kind::Text,
            Primitive::Bool | Primitive::U8 | Primitive::I8 => 1,
            Primitive::U16 | Primitive::I16 => 2,
            Primitive::Char | Primitive::U32 | Primitive::I32 => 4,
            Primitive::U64 | Primitive::I64 => 8,
            Primitive::U128 | Primitive::I128 => 16,
            Primitive::U256 | Primitive::I256 => 32,
        })
    }

    fn visit_compact(self, _: u32) -> Kind {
        Kind::Compact
    }

    fn visit_bit_sequence(self, _: BitsStoreFormat, _: BitsOrderFormat) -> Kind {
        Kind::Unsupported
    }
}
