//! Tiny writers of the formats; they write whatever they are told, valid or not.

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

/// A zip archive to be, of stored files; a valid one unless fields are set otherwise.
#[derive(Clone)]
pub(crate) struct Zip {
    /// Name and content of the files.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Method and flags of the last file.
    pub(crate) method: u16,
    pub(crate) flags: u16,
    /// Added to the sizes and offsets that the directory gives for the last file: packed, unpacked, offset.
    pub(crate) lies: [u32; 3],
    /// Sizes, offsets and the end record have 64 bits.
    pub(crate) long: bool,
    pub(crate) comment: Vec<u8>,
}

impl Zip {
    /// A checkpoint: this pickle, and storages of the given lengths.
    pub(crate) fn checkpoint(pickle: Vec<u8>, storages: &[usize]) -> Zip {
        let storage = |(number, &bytes): (usize, &usize)| (format!("m/data/{number}"), vec![0; bytes]);
        let mut files = vec![("m/data.pkl".to_owned(), pickle), ("m/byteorder".to_owned(), b"little".into())];
        files.extend(storages.iter().enumerate().map(storage));
        Zip { files, method: 0, flags: 0, lies: [0; 3], long: false, comment: Vec::new() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (number, (name, content)) in self.files.iter().enumerate() {
            let last = number + 1 == self.files.len();
            let (method, flags, lies) =
                if last { (self.method, self.flags, self.lies) } else { (0, 0, [0; 3]) };
            let lie = |value: usize, lie: u32| (value as u32).wrapping_add(lie);
            let (packed, unpacked) = (lie(content.len(), lies[0]), lie(content.len(), lies[1]));
            let offset = lie(file.len(), lies[2]);
            let start = [[20, 0], flags.to_le_bytes(), method.to_le_bytes()].concat();
            let name_bytes = (name.len() as u16).to_le_bytes();
            file.extend([b"PK\x03\x04", start.as_slice(), &[0; 16], &name_bytes, &[3, 0]].concat());
            file.extend([name.as_bytes(), &[0; 3], content].concat());
            let mut extra = Vec::new();
            let mut sizes = [packed, unpacked, offset].map(u32::to_le_bytes);
            if self.long {
                extra.extend([[1u16, 24].map(u16::to_le_bytes).concat()].concat());
                [unpacked, packed, offset]
                    .iter()
                    .for_each(|&size| extra.extend(u64::from(size).to_le_bytes()));
                sizes = [[0xff; 4]; 3];
            }
            directory.extend([b"PK\x01\x02\x14\0", start.as_slice(), &[0; 8]].concat());
            directory.extend([sizes[0], sizes[1]].concat());
            directory.extend([name_bytes, (extra.len() as u16).to_le_bytes()].concat());
            directory.extend([&[0; 10], sizes[2].as_slice(), name.as_bytes(), &extra].concat());
        }
        self.end(file, &directory)
    }

    fn end(&self, mut file: Vec<u8>, directory: &[u8]) -> Vec<u8> {
        let (count, bytes, offset) = (self.files.len() as u64, directory.len() as u64, file.len() as u64);
        file.extend(directory);
        if self.long {
            let end = file.len() as u64;
            file.extend([b"PK\x06\x06", 44u64.to_le_bytes().as_slice(), &[0; 12]].concat());
            [count, count, bytes, offset].iter().for_each(|value| file.extend(value.to_le_bytes()));
            file.extend([b"PK\x06\x07", [0; 4].as_slice(), &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
        }
        file.extend(b"PK\x05\x06\0\0\0\0");
        file.extend([(count as u16).to_le_bytes(); 2].concat());
        file.extend([(bytes as u32).to_le_bytes(), (offset as u32).to_le_bytes()].concat());
        file.extend((self.comment.len() as u16).to_le_bytes());
        file.extend(&self.comment);
        file
    }
}

/// A tensor in a pickle: name, storage and its elements, then offset, shape and strides of the tensor, in elements.
pub(crate) type Pickled<'a> = (&'a str, (u8, i32), i32, &'a [i32], &'a [i32]);

/// The pickle of a dictionary of F32 tensors.
pub(crate) fn pickle(tensors: &[Pickled<'_>]) -> Vec<u8> {
    let text = |text: &str| [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat();
    let int = |value: i32| [b"J", value.to_le_bytes().as_slice()].concat();
    let tuple = |items: &[i32]| {
        [b"(", items.iter().flat_map(|&item| int(item)).collect::<Vec<_>>().as_slice(), b"t"].concat()
    };
    let mut bytes = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for &(name, (storage, elements), offset, shape, strides) in tensors {
        bytes.extend([&text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((".as_slice()].concat());
        bytes.extend([&text("storage"), b"ctorch\nFloatStorage\n".as_slice()].concat());
        bytes.extend(
            [text(&storage.to_string()), text("cpu"), int(elements), b"tQ".into(), int(offset)].concat(),
        );
        bytes.extend(
            [&tuple(shape), &tuple(strides), b"\x89ccollections\nOrderedDict\n)RtR".as_slice()].concat(),
        );
    }
    // Attributes: {"a": 1}.
    bytes.extend(b"u}X\x01\0\0\0aK\x01sb.");
    bytes
}

/// A valid PyTorch file with one F32 vector of two elements per name.
pub(crate) fn pytorch_vectors(names: &[&str]) -> Vec<u8> {
    let tensors: Vec<Pickled<'_>> =
        names.iter().enumerate().map(|(i, name)| (*name, (i as u8, 2), 0, &[2][..], &[1][..])).collect();
    Zip::checkpoint(pickle(&tensors), &vec![8; names.len()]).bytes()
}
