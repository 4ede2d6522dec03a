//! The names of filters, tests and methods.

pub(super) const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

pub(super) const TESTS: &[&str] = &[
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
];

pub(super) const TEXT_METHODS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// What only texts marked safe have.
pub(super) const MARKUP_METHODS: &[&str] = &["escape", "striptags", "unescape"];

pub(super) const UNDEFINED_OWN: &[&str] = &[
    "__class__",
    "__doc__",
    "__init__",
    "__len__",
    "__iter__",
    "__str__",
    "__module__",
    "__eq__",
    "__hash__",
    "__call__",
    "__getitem__",
    "__slots__",
];

pub(super) const BYTES_METHODS: &[&str] = &["decode", "hex"];

pub(super) const LIST_METHODS: &[&str] = &["copy", "count", "index"];

/// Methods that change a list, which the sandbox refuses.
pub(super) const LIST_CHANGES: &[&str] =
    &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];

pub(super) const DICT_METHODS: &[&str] = &["copy", "fromkeys", "get", "items", "keys", "values"];

/// Methods that change a dict, which the sandbox refuses.
pub(super) const DICT_CHANGES: &[&str] = &["clear", "pop", "popitem", "setdefault", "update"];

pub(super) const TUPLE_METHODS: &[&str] = &["count", "index"];

pub(super) const INT_METHODS: &[&str] =
    &["as_integer_ratio", "bit_count", "bit_length", "conjugate", "from_bytes", "to_bytes"];

pub(super) const FLOAT_METHODS: &[&str] = &["as_integer_ratio", "conjugate", "fromhex", "hex", "is_integer"];

pub(super) const VIEW_METHODS: &[&str] = &["isdisjoint"];

pub(super) const LOOP_METHODS: &[&str] = &["changed", "cycle"];

pub(super) const CYCLER_METHODS: &[&str] = &["next", "reset"];
