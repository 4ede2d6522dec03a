//! A machine for the pickles of PyTorch checkpoints: a dictionary of tensors, and nothing that runs.
//!
//! Source: Python's `pickletools` for the instructions. What a pickle may name is a fixed list ([`Global::find`]);
//! calling is interpreted here for the five of them that make dictionaries and tensors. Memory is bounded by the length
//! of the pickle: every instruction makes at most one value.

use std::collections::HashMap;

use crate::limits::{DIMENSIONS_MAX, TENSORS_MAX};
use crate::{DType, ErrorKind};

/// A tensor of the outermost dictionary.
pub(super) struct Record {
    pub(super) name: String,
    pub(super) view: View,
}

/// A part of a storage as a tensor; offset and strides count elements.
#[derive(Clone)]
pub(super) struct View {
    /// Index of the storage.
    pub(super) storage: usize,
    pub(super) dtype: DType,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// A storage, which is a file in the archive.
pub(super) struct Storage<'a> {
    /// The name of the file.
    pub(super) key: &'a str,
    /// The type of its elements; bytes where there is none.
    dtype: Option<DType>,
    pub(super) elements: u64,
}

impl Storage<'_> {
    pub(super) fn element_bytes(&self) -> usize {
        self.dtype.map_or(1, DType::block_bytes)
    }

    /// Its length, if that fits.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.elements.checked_mul(self.element_bytes() as u64)
    }
}

type Fault = (ErrorKind, String);

/// The tensors of the dictionary that a pickle makes, and the storages they lie in.
pub(super) fn read(pickle: &[u8]) -> Result<(Vec<Storage<'_>>, Vec<Record>), Fault> {
    let mut machine = Machine {
        rest: pickle,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        storages: Vec::new(),
        numbers: HashMap::new(),
    };
    let top = loop {
        let at = pickle.len() - machine.rest.len();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(top)) => break top,
            Err((kind, message)) => return Err((kind, format!("at byte {at}: {message}"))),
        }
    };
    let records = machine.records(top)?;
    Ok((machine.storages, records))
}

/// Index of a value.
type Id = u32;

/// The most values of a pickle; a tensor takes about twelve.
const VALUES_MAX: usize = 4 << 20;

enum Value<'a> {
    /// `None` and what is never looked into: lists, bytes, floats.
    Other,
    Bool,
    Int(i64),
    Text(&'a str),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// Index of the storage.
    Storage(usize),
    Tensor(Box<View>),
}

/// What a pickle may name.
#[derive(Clone, Copy)]
enum Global {
    OrderedDict,
    RebuildTensor,
    /// As `RebuildTensor`, with the type of the elements at the end.
    RebuildTypedTensor,
    RebuildParameter,
    /// A class of storages, of bytes where there is no type.
    Storage(Option<DType>),
    DType(DType),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTypedTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch.storage", "UntypedStorage") => Global::Storage(None),
            ("torch", _) => match name.strip_suffix("Storage") {
                Some(class) => Global::Storage(Some(storage_dtype(class)?)),
                None => Global::DType(dtype(name)?),
            },
            _ => return None,
        })
    }
}

/// The elements of `torch.FloatStorage` and its like.
fn storage_dtype(class: &str) -> Option<DType> {
    Some(match class {
        "Double" => DType::F64,
        "Float" => DType::F32,
        "Half" => DType::F16,
        "BFloat16" => DType::BF16,
        "Long" => DType::I64,
        "Int" => DType::I32,
        "Short" => DType::I16,
        "Char" => DType::I8,
        "Byte" => DType::U8,
        "Bool" => DType::BOOL,
        "ComplexFloat" => DType::C64,
        _ => return None,
    })
}

/// The types that PyTorch calls `torch.float32` and so on.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "float64" => DType::F64,
        "float32" => DType::F32,
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        "float8_e4m3fn" => DType::F8_E4M3,
        "float8_e5m2" => DType::F8_E5M2,
        "float8_e8m0fnu" => DType::F8_E8M0,
        "float8_e4m3fnuz" => DType::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => DType::F8_E5M2FNUZ,
        "int64" => DType::I64,
        "int32" => DType::I32,
        "int16" => DType::I16,
        "int8" => DType::I8,
        "uint64" => DType::U64,
        "uint32" => DType::U32,
        "uint16" => DType::U16,
        "uint8" => DType::U8,
        "bool" => DType::BOOL,
        _ => return None,
    })
}

struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Lengths of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    storages: Vec<Storage<'a>>,
    /// The storages by their keys.
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Machine<'a> {
    /// Does one instruction; gives the result of the pickle at its end.
    fn step(&mut self) -> Result<Option<Id>, Fault> {
        let [instruction] = self.array()?;
        match instruction {
            b'.' => return self.pop().map(Some),
            // PROTO, FRAME
            0x80 => self.take(1).map(drop)?,
            0x95 => self.take(8).map(drop)?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop().map(drop)?,
            b'1' => self.above_mark().map(drop)?,
            b'N' => self.push(Value::Other)?,
            0x88 | 0x89 => self.push(Value::Bool)?,
            b'K' | b'M' | b'J' | 0x8a => {
                let value = self.integer(instruction)?;
                self.push(Value::Int(value))?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)?;
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' | 0x8c | 0x8d => {
                let text = self.text(instruction)?;
                self.push(Value::Text(text))?;
            }
            // SHORT_BINBYTES, BINBYTES
            b'C' | b'B' => {
                let len = if instruction == b'C' { self.array::<1>()?[0].into() } else { self.u32()? };
                self.take(len as usize)?;
                self.push(Value::Other)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            0x85..=0x87 => self.short_tuple(usize::from(instruction - 0x84))?,
            b't' => {
                let items = self.above_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b']' => self.push(Value::Other)?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            // LIST, APPEND, APPENDS: what is in lists is not kept.
            b'l' => {
                self.above_mark()?;
                self.push(Value::Other)?;
            }
            b'a' => self.pop().map(drop)?,
            b'e' => self.above_mark().map(drop)?,
            b'd' | b's' | b'u' => self.set_items(instruction)?,
            b'q' | b'r' | b'h' | b'j' | 0x94 => self.remember(instruction)?,
            b'c' | 0x93 => self.global(instruction)?,
            b'Q' => self.persistent()?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => {
                let message =
                    format!("the instruction 0x{other:02x} is none that a checkpoint of tensors needs");
                return Err((ErrorKind::Unsupported, message));
            }
        }
        Ok(None)
    }

    fn short_tuple(&mut self, len: usize) -> Result<(), Fault> {
        let from =
            self.stack.len().checked_sub(len).filter(|from| self.marks.last().is_none_or(|m| m <= from));
        let items = self.stack.split_off(from.ok_or_else(underflow)?);
        self.push(Value::Tuple(items))
    }

    fn integer(&mut self, instruction: u8) -> Result<i64, Fault> {
        Ok(match instruction {
            b'K' => self.array::<1>()?[0].into(),
            b'M' => u16::from_le_bytes(self.array()?).into(),
            b'J' => i32::from_le_bytes(self.array()?).into(),
            // LONG1
            _ => {
                let [len] = self.array()?;
                let bytes = self.take(len.into())?;
                if bytes.len() > 8 {
                    return Err(malformed("an integer of more than 64 bits"));
                }
                let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
                let mut all = [sign; 8];
                all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                i64::from_le_bytes(all)
            }
        })
    }

    fn text(&mut self, instruction: u8) -> Result<&'a str, Fault> {
        let len = match instruction {
            0x8c => self.array::<1>()?[0].into(),
            0x8d => u64::from_le_bytes(self.array()?),
            _ => self.u32()?.into(),
        };
        let len = usize::try_from(len).map_err(|_| truncated())?;
        str::from_utf8(self.take(len)?).map_err(|_| malformed("a string that is not UTF-8"))
    }

    /// DICT, SETITEM, SETITEMS.
    fn set_items(&mut self, instruction: u8) -> Result<(), Fault> {
        let items = if instruction == b's' {
            let (value, key) = (self.pop()?, self.pop()?);
            vec![key, value]
        } else {
            self.above_mark()?
        };
        if instruction == b'd' {
            self.push(Value::Dict(Vec::new()))?;
        }
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(malformed("a key without a value"));
        }
        let top = *self.stack.last().ok_or_else(underflow)?;
        match self.values.get_mut(top as usize) {
            Some(Value::Dict(entries)) => {
                entries.extend(pairs.filter_map(|pair| pair.first_chunk().map(|&[key, value]| (key, value))));
                Ok(())
            }
            _ => Err(malformed("an entry is set in what is no dictionary")),
        }
    }

    /// The memo: BINPUT, LONG_BINPUT, BINGET, LONG_BINGET, MEMOIZE.
    fn remember(&mut self, instruction: u8) -> Result<(), Fault> {
        let number = match instruction {
            b'q' | b'h' => self.array::<1>()?[0].into(),
            b'r' | b'j' => self.u32()?,
            _ => self.memo.len() as u32,
        };
        if matches!(instruction, b'h' | b'j') {
            let id = self.memo.get(&number).copied();
            self.stack.push(id.ok_or_else(|| malformed("a value is used that was never made"))?);
        } else {
            let top = *self.stack.last().ok_or_else(underflow)?;
            self.memo.insert(number, top);
        }
        Ok(())
    }

    /// GLOBAL, STACK_GLOBAL: one of the known names, or an end.
    fn global(&mut self, instruction: u8) -> Result<(), Fault> {
        let (module, name) = if instruction == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (self.value(module), self.value(name)) {
                (Some(Value::Text(module)), Some(Value::Text(name))) => (*module, *name),
                _ => return Err(malformed("a global whose name is no text")),
            }
        };
        let global = Global::find(module, name).ok_or_else(|| {
            let cut = |text: &str| text.chars().take(80).collect::<String>();
            let message = format!(
                "it asks for `{}.{}`, which a checkpoint of tensors does not need; nothing was run. Take the model's \
                 safetensors, or save its bare state dictionary",
                cut(module).escape_debug(),
                cut(name).escape_debug()
            );
            (ErrorKind::Unsupported, message)
        })?;
        self.push(Value::Global(global))
    }

    /// BINPERSID: `("storage", class, key, device, elements)`.
    fn persistent(&mut self) -> Result<(), Fault> {
        let id = self.pop()?;
        let fields = self.tuple(id).and_then(|items| items.first_chunk::<5>().copied());
        let found = fields.and_then(|[kind, class, key, _, elements]| {
            match (self.value(kind), self.value(class), self.value(key)) {
                (
                    Some(Value::Text("storage")),
                    Some(Value::Global(Global::Storage(dtype))),
                    Some(Value::Text(key)),
                ) => Some(Storage { key, dtype: *dtype, elements: self.count(elements)? }),
                _ => None,
            }
        });
        let storage = found.ok_or_else(|| malformed("a reference to something that is no storage"))?;
        let number = match self.numbers.get(storage.key) {
            Some(&number) => {
                let first = self.storages.get(number);
                if first
                    .is_none_or(|first| first.dtype != storage.dtype || first.elements != storage.elements)
                {
                    return Err(malformed("one storage with two types or lengths"));
                }
                number
            }
            None if self.storages.len() == TENSORS_MAX => return Err(malformed("too many storages")),
            None => {
                self.numbers.insert(storage.key, self.storages.len());
                self.storages.push(storage);
                self.storages.len() - 1
            }
        };
        self.push(Value::Storage(number))
    }

    /// REDUCE: one of the functions that are known, on a tuple.
    fn call(&mut self) -> Result<(), Fault> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let arguments = self.tuple(arguments).ok_or_else(|| malformed("arguments that are no tuple"))?;
        let Some(Value::Global(function)) = self.value(function) else {
            return Err(malformed("a call of what is no function"));
        };
        let value = match (function, arguments) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::RebuildParameter, &[tensor, _, _]) => {
                let Some(Value::Tensor(view)) = self.value(tensor) else {
                    return Err(malformed("a parameter of what is no tensor"));
                };
                Value::Tensor(view.clone())
            }
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                self.view(storage, offset, shape, strides, None)?
            }
            (Global::RebuildTypedTensor, &[storage, offset, shape, strides, _, _, dtype, ..]) => {
                self.view(storage, offset, shape, strides, Some(dtype))?
            }
            _ => return Err(malformed("a call with arguments that do not fit")),
        };
        self.push(value)
    }

    /// A tensor; its type is that of its storage where `dtype` is not given.
    fn view(
        &self,
        storage: Id,
        offset: Id,
        shape: Id,
        strides: Id,
        dtype: Option<Id>,
    ) -> Result<Value<'a>, Fault> {
        let Some(&Value::Storage(storage)) = self.value(storage) else {
            return Err(malformed("a tensor without a storage"));
        };
        let stored = self.storages.get(storage).and_then(|storage| storage.dtype);
        let dtype = match dtype.map(|dtype| self.value(dtype)) {
            None => stored,
            Some(Some(&Value::Global(Global::DType(dtype)))) => Some(dtype),
            Some(_) => None,
        };
        let dtype = dtype.ok_or_else(|| malformed("a tensor whose type is not given"))?;
        let counts = |id| {
            let items = self.tuple(id).filter(|items| items.len() <= DIMENSIONS_MAX)?;
            items.iter().map(|&item| self.count(item)).collect::<Option<Vec<u64>>>()
        };
        let (Some(offset), Some(shape), Some(strides)) = (self.count(offset), counts(shape), counts(strides))
        else {
            return Err(malformed("a tensor whose offset, shape or strides are no small tuples of counts"));
        };
        Ok(Value::Tensor(Box::new(View { storage, dtype, offset, shape, strides })))
    }

    /// BUILD: attributes of a dictionary, such as the versions of modules, which say nothing about tensors.
    fn build(&mut self) -> Result<(), Fault> {
        self.pop()?;
        let top = *self.stack.last().ok_or_else(underflow)?;
        match self.value(top) {
            Some(Value::Dict(_)) => Ok(()),
            _ => Err(malformed("attributes of what is no dictionary")),
        }
    }

    /// The tensors of the dictionary `top`. What else is in it is left out, but there must be some.
    fn records(&self, top: Id) -> Result<Vec<Record>, Fault> {
        let Some(Value::Dict(entries)) = self.value(top) else {
            return Err((ErrorKind::Unsupported, "it holds no dictionary of tensors".to_owned()));
        };
        let record = |&(key, value): &(Id, Id)| match (self.value(key), self.value(value)) {
            (Some(Value::Text(name)), Some(Value::Tensor(view))) => {
                Some(Record { name: (*name).to_owned(), view: View::clone(view) })
            }
            _ => None,
        };
        let records: Vec<Record> = entries.iter().filter_map(record).take(TENSORS_MAX + 1).collect();
        if records.len() > TENSORS_MAX {
            return Err(malformed("too many tensors"));
        }
        if records.is_empty() && !entries.is_empty() {
            let message = "its dictionary holds no tensors; a checkpoint that was saved with more around it (of an \
                           optimizer, or below \"state_dict\") is not read: save the state dictionary alone";
            return Err((ErrorKind::Unsupported, message.to_owned()));
        }
        Ok(records)
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Fault> {
        if self.values.len() == VALUES_MAX {
            return Err(malformed("more values than a checkpoint of tensors has"));
        }
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    /// Takes the top of the stack, above the last mark.
    fn pop(&mut self) -> Result<Id, Fault> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    /// Takes all above the last mark, and the mark.
    fn above_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(underflow)?))
    }

    fn value(&self, id: Id) -> Option<&Value<'a>> {
        self.values.get(id as usize)
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Some(Value::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    fn count(&self, id: Id) -> Option<u64> {
        match self.value(id) {
            Some(&Value::Int(value)) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| truncated())
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Text up to the end of a line.
    fn line(&mut self) -> Result<&'a str, Fault> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or_else(truncated)?;
        let line = self.take(end)?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| malformed("a name that is not UTF-8"))
    }
}

fn malformed(what: &str) -> Fault {
    (ErrorKind::Header, what.to_owned())
}

fn underflow() -> Fault {
    malformed("a value is taken where there is none")
}

fn truncated() -> Fault {
    (ErrorKind::Truncated, "it ends within an instruction".to_owned())
}
