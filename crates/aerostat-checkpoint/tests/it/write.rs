//! Tiny writers of both formats; they write whatever they are told, valid or not.

/// A safetensors file with this header and `data_bytes` zeros.
pub(crate) fn safetensors(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

/// A valid safetensors file with one F32 vector of two elements per name.
pub(crate) fn vectors(names: &[&str]) -> Vec<u8> {
    let entry = |(index, name): (usize, &&str)| {
        let (begin, end) = (8 * index, 8 * index + 8);
        format!(r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{begin},{end}]}}"#)
    };
    let entries: Vec<String> = names.iter().enumerate().map(entry).collect();
    safetensors(&format!("{{{}}}", entries.join(",")), 8 * names.len())
}

/// A GGUF file to be: a valid one unless fields are set otherwise.
#[derive(Clone)]
pub(crate) struct Gguf {
    pub(crate) version: u32,
    pub(crate) entry_count: Option<u64>,
    pub(crate) tensor_count: Option<u64>,
    /// Key, number of the type, value as its bytes.
    pub(crate) entries: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// Name, dimensions (contiguous first), number of the type, offset in the data.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, u64)>,
    pub(crate) alignment: usize,
    pub(crate) data_bytes: usize,
}

impl Gguf {
    pub(crate) fn new() -> Gguf {
        Gguf {
            version: 3,
            entry_count: None,
            tensor_count: None,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data_bytes: 0,
        }
    }

    pub(crate) fn entry(mut self, key: &str, id: u32, value: impl AsRef<[u8]>) -> Gguf {
        self.entries.push((key.into(), id, value.as_ref().to_vec()));
        self
    }

    /// An F32 vector of eight elements (32 bytes) at the end of the data.
    pub(crate) fn vector(mut self, name: &str) -> Gguf {
        self.tensors.push((name.into(), vec![8], 0, self.data_bytes as u64));
        self.data_bytes += 32;
        self
    }

    pub(crate) fn tensor(mut self, name: &str, dimensions: &[u64], id: u32, offset: u64) -> Gguf {
        self.tensors.push((name.into(), dimensions.to_vec(), id, offset));
        self
    }

    pub(crate) fn data(mut self, bytes: usize) -> Gguf {
        self.data_bytes = bytes;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        for (key, id, value) in &self.entries {
            file.extend(string(key));
            file.extend(id.to_le_bytes());
            file.extend(value);
        }
        for (name, dimensions, id, offset) in &self.tensors {
            file.extend(string(name));
            file.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|dimension| file.extend(dimension.to_le_bytes()));
            file.extend(id.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(self.alignment) + self.data_bytes, 0);
        file
    }
}

/// A GGUF string: its length and its bytes.
pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A GGUF array: the number of the element type, a count, and the elements as their bytes.
pub(crate) fn array(id: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes(), &count.to_le_bytes() as &[u8], elements].concat()
}

/// Part `number` (from 1) of a split set, with one vector.
pub(crate) fn gguf_part(number: u16, count: u16, tensor: &str, tensor_count: i32) -> Vec<u8> {
    Gguf::new()
        .entry("split.no", 2, (number - 1).to_le_bytes())
        .entry("split.count", 2, count.to_le_bytes())
        .entry("split.tensors.count", 5, tensor_count.to_le_bytes())
        .vector(tensor)
        .bytes()
}
