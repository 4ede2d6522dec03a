//! A parsed template.

/// A statement and the line it begins on.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) line: u32,
    pub(super) kind: StatementKind,
}

pub(super) type Body = Vec<Statement>;

#[derive(Debug)]
pub(super) enum StatementKind {
    Text(Box<str>),
    Print(Expression),
    If {
        branches: Vec<(Expression, Body)>,
        otherwise: Body,
    },
    For(Box<For>),
    Set {
        target: Target,
        value: Expression,
    },
    SetBlock {
        target: Target,
        filter: Option<Expression>,
        body: Body,
    },
    /// The place of a macro in the template's list.
    Macro(usize),
    /// A call with a body, which is the macro `caller`.
    Call {
        caller: usize,
        call: Expression,
    },
    Filter {
        filter: Expression,
        body: Body,
    },
    With {
        targets: Vec<(Target, Expression)>,
        body: Body,
    },
    /// A scope of its own, whose output is what it writes.
    Scope(Body),
    AutoEscape {
        on: Expression,
        body: Body,
    },
    /// A block, which sees the variables of the top level, or those of its place if `scoped`.
    Block {
        at: usize,
        scoped: bool,
        required: bool,
    },
    /// Variables that are undefined from here until they are set.
    Unset(Vec<u32>),
    Break,
    Continue,
    /// `include`, `import`, `from`, `extends`: there is nothing to load.
    Load(&'static str),
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) source: Expression,
    /// The place of the condition in the template's list.
    pub(super) condition: Option<usize>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

/// The condition of a loop, with the target it speaks of.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) target: Target,
    pub(super) test: Expression,
}

/// What is assigned to. Names are places in the template's list of names.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Name(u32),
    /// An attribute of a namespace.
    Attribute(u32, u32),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) struct MacroDefinition {
    /// Nothing for call blocks.
    pub(super) name: u32,
    pub(super) is_call_block: bool,
    pub(super) parameters: Vec<u32>,
    /// The defaults of the last parameters.
    pub(super) defaults: Vec<Expression>,
    pub(super) body: Body,
    pub(super) takes_caller: bool,
    pub(super) takes_varargs: bool,
    pub(super) takes_kwargs: bool,
}

/// An expression, the line it is on and how deep it nests.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) line: u32,
    pub(super) depth: u16,
    pub(super) kind: ExpressionKind,
}

#[derive(Debug)]
pub(super) enum ExpressionKind {
    /// A place in the template's list of constants.
    Constant(u32),
    Name(u32),
    Tuple(Vec<Expression>),
    List(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Positive(Box<Expression>),
    Binary(Operator, Box<(Expression, Expression)>),
    And(Box<(Expression, Expression)>),
    Or(Box<(Expression, Expression)>),
    Concat(Vec<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    Condition(Box<Ternary>),
    Attribute(Box<Expression>, u32),
    Item(Box<(Expression, Expression)>),
    Slice(Box<Expression>, Box<[Option<Expression>; 3]>),
    Call(Box<Expression>, Box<Arguments>),
    /// Without a subject it filters what a block wrote.
    Filter(Option<Box<Expression>>, u32, Box<Arguments>),
    Test(Box<Expression>, u32, Box<Arguments>),
}

#[derive(Debug)]
pub(super) struct Ternary {
    pub(super) test: Expression,
    pub(super) value: Expression,
    pub(super) otherwise: Option<Expression>,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expression>,
    pub(super) named: Vec<(u32, Expression)>,
    pub(super) more_positional: Option<Expression>,
    pub(super) more_named: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

#[derive(Debug)]
pub(super) enum Constant {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Box<str>),
}
