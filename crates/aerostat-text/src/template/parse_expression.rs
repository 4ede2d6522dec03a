//! Expressions of a template.

use super::ast::{Arguments, Comparison, Constant, Expression, ExpressionKind as Kind, Operator, Ternary};
use super::lexer::Token;
use super::limits::{ARGUMENTS_MAX, EXPRESSION_DEPTH_MAX, Fault, Outcome};
use super::parser::Parser;

/// How tightly operators bind, the loosest first.
mod level {
    pub(super) const OR: u8 = 0;
    pub(super) const AND: u8 = 1;
    pub(super) const NOT: u8 = 2;
    pub(super) const COMPARE: u8 = 3;
    pub(super) const ADD: u8 = 4;
    pub(super) const CONCAT: u8 = 5;
    pub(super) const MULTIPLY: u8 = 6;
    pub(super) const POWER: u8 = 7;
}

/// An operator between two operands.
#[derive(Clone, Copy, PartialEq)]
enum Infix {
    Or,
    And,
    Compare(Comparison),
    Concat,
    Binary(Operator),
}

impl<'s> Parser<'s> {
    /// One level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= EXPRESSION_DEPTH_MAX {
            return self.fail(format!("an expression nests more than {EXPRESSION_DEPTH_MAX} levels deep"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// A node, which knows how deep it is.
    fn node(&mut self, line: u32, kind: Kind) -> Outcome<Expression> {
        self.count()?;
        let depth = 1 + depth_below(&kind);
        if depth > EXPRESSION_DEPTH_MAX {
            let message = format!("an expression nests more than {EXPRESSION_DEPTH_MAX} levels deep");
            return Err(Fault::at(message, line));
        }
        Ok(Expression { line, depth, kind })
    }

    /// An expression, with `a if b else c` if `ternary`.
    pub(super) fn expression(&mut self, ternary: bool) -> Outcome<Expression> {
        self.deeper(|parser| parser.expression_here(ternary))
    }

    fn expression_here(&mut self, ternary: bool) -> Outcome<Expression> {
        let mut line = self.line;
        let unknown = self.unknown.len();
        let mut left = self.binary(level::OR)?;
        while ternary && self.is_name("if") {
            self.advance()?;
            let test = self.binary(level::OR)?;
            let otherwise = match self.skip_name("else")? {
                true => Some(self.expression(true)?),
                false => None,
            };
            let parts = Ternary { test, value: left, otherwise };
            left = self.node(line, Kind::Condition(Box::new(parts)))?;
            self.unknown.truncate(unknown);
            line = self.line;
        }
        Ok(left)
    }

    /// Operators that bind at least as tightly as `least`.
    fn binary(&mut self, least: u8) -> Outcome<Expression> {
        let mut line = self.line;
        let mut most = level::POWER;
        let mut left = if least <= level::NOT && self.is_name("not") {
            self.advance()?;
            let operand = self.deeper(|parser| parser.binary(level::NOT))?;
            most = level::AND;
            self.node(line, Kind::Not(Box::new(operand)))?
        } else {
            self.unary(true)?
        };
        while let Some((infix, binds)) = self.infix()? {
            if binds < least || binds > most {
                break;
            }
            let kind = match infix {
                Infix::Compare(_) => Kind::Compare(Box::new(left), self.comparisons()?),
                Infix::Concat => {
                    let mut parts = vec![left];
                    while self.skip_operator("~")? {
                        parts.push(self.binary(binds + 1)?);
                    }
                    Kind::Concat(parts)
                }
                Infix::Or | Infix::And | Infix::Binary(_) => {
                    self.advance()?;
                    let both = Box::new((left, self.binary(binds + 1)?));
                    match infix {
                        Infix::Or => Kind::Or(both),
                        Infix::And => Kind::And(both),
                        Infix::Binary(operator) => Kind::Binary(operator, both),
                        Infix::Compare(_) | Infix::Concat => return self.fail("expected an operator"),
                    }
                }
            };
            left = self.node(line, kind)?;
            line = self.line;
            most = binds;
        }
        Ok(left)
    }

    /// The operator that comes next, and how tightly it binds.
    fn infix(&mut self) -> Outcome<Option<(Infix, u8)>> {
        let found = match &self.token {
            Token::Name("or") => (Infix::Or, level::OR),
            Token::Name("and") => (Infix::And, level::AND),
            Token::Name("in") => (Infix::Compare(Comparison::In), level::COMPARE),
            Token::Name("not") => {
                if *self.look()? != Token::Name("in") {
                    return Ok(None);
                }
                (Infix::Compare(Comparison::NotIn), level::COMPARE)
            }
            Token::Operator(operator) => match *operator {
                "==" => (Infix::Compare(Comparison::Equal), level::COMPARE),
                "!=" => (Infix::Compare(Comparison::NotEqual), level::COMPARE),
                "<" => (Infix::Compare(Comparison::Less), level::COMPARE),
                "<=" => (Infix::Compare(Comparison::LessOrEqual), level::COMPARE),
                ">" => (Infix::Compare(Comparison::Greater), level::COMPARE),
                ">=" => (Infix::Compare(Comparison::GreaterOrEqual), level::COMPARE),
                "+" => (Infix::Binary(Operator::Add), level::ADD),
                "-" => (Infix::Binary(Operator::Subtract), level::ADD),
                "~" => (Infix::Concat, level::CONCAT),
                "*" => (Infix::Binary(Operator::Multiply), level::MULTIPLY),
                "/" => (Infix::Binary(Operator::Divide), level::MULTIPLY),
                "//" => (Infix::Binary(Operator::FloorDivide), level::MULTIPLY),
                "%" => (Infix::Binary(Operator::Modulo), level::MULTIPLY),
                "**" => (Infix::Binary(Operator::Power), level::POWER),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(found))
    }

    fn comparisons(&mut self) -> Outcome<Vec<(Comparison, Expression)>> {
        let mut comparisons = Vec::new();
        while let Some((Infix::Compare(comparison), _)) = self.infix()? {
            self.advance()?;
            if comparison == Comparison::NotIn {
                self.advance()?;
            }
            comparisons.push((comparison, self.binary(level::ADD)?));
        }
        Ok(comparisons)
    }

    fn unary(&mut self, with_filter: bool) -> Outcome<Expression> {
        let line = self.line;
        let negative = self.is_operator("-");
        let node = if negative || self.is_operator("+") {
            self.advance()?;
            let operand = Box::new(self.deeper(|parser| parser.unary(false))?);
            let kind = if negative { Kind::Negative(operand) } else { Kind::Positive(operand) };
            self.node(line, kind)?
        } else {
            self.primary()?
        };
        let node = self.postfix(node)?;
        if with_filter { self.filters_and_tests(node) } else { Ok(node) }
    }

    fn primary(&mut self) -> Outcome<Expression> {
        let line = self.line;
        let kind = match self.advance()? {
            Token::Name("true" | "True") => self.constant(Constant::Bool(true)),
            Token::Name("false" | "False") => self.constant(Constant::Bool(false)),
            Token::Name("none" | "None") => self.constant(Constant::None),
            Token::Name(name) => {
                self.note_load(name);
                Kind::Name(self.id(name))
            }
            Token::Text(mut text) => {
                while let Token::Text(more) = &self.token {
                    text.push_str(more);
                    self.advance()?;
                }
                self.constant(Constant::Text(text.into()))
            }
            Token::Int(value) => self.constant(Constant::Int(value)),
            Token::Float(value) => self.constant(Constant::Float(value)),
            Token::Operator("(") => {
                let inner = self.tuple(true, &[], true)?;
                self.expect_operator(")")?;
                return Ok(inner);
            }
            Token::Operator("[") => Kind::List(self.list()?),
            Token::Operator("{") => Kind::Dict(self.dict()?),
            token => return Err(Fault::at(format!("unexpected '{}'", token.describe()), line)),
        };
        self.node(line, kind)
    }

    /// An expression, or several with commas between them. Nothing at all is a tuple in parentheses only.
    pub(super) fn tuple(
        &mut self,
        ternary: bool,
        ends: &[&str],
        in_parentheses: bool,
    ) -> Outcome<Expression> {
        let line = self.line;
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            if self.is_tuple_end(ends) {
                break;
            }
            items.push(self.expression(ternary)?);
            if !self.is_operator(",") {
                break;
            }
            is_tuple = true;
        }
        if !is_tuple {
            if let Some(item) = items.pop() {
                return Ok(item);
            }
            if !in_parentheses {
                return self.fail(format!("Expected an expression, got '{}'", self.token.describe()));
            }
        }
        self.node(line, Kind::Tuple(items))
    }

    fn list(&mut self) -> Outcome<Vec<Expression>> {
        let mut items = Vec::new();
        while !self.is_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator("]") {
                    break;
                }
            }
            items.push(self.expression(true)?);
        }
        self.expect_operator("]")?;
        Ok(items)
    }

    fn dict(&mut self) -> Outcome<Vec<(Expression, Expression)>> {
        let mut entries = Vec::new();
        while !self.is_operator("}") {
            if !entries.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator("}") {
                    break;
                }
            }
            let key = self.expression(true)?;
            self.expect_operator(":")?;
            entries.push((key, self.expression(true)?));
        }
        self.expect_operator("}")?;
        Ok(entries)
    }

    fn postfix(&mut self, mut node: Expression) -> Outcome<Expression> {
        loop {
            let line = self.line;
            if self.skip_operator(".")? {
                let kind = match self.advance()? {
                    Token::Name(name) => Kind::Attribute(Box::new(node), self.id(name)),
                    Token::Int(value) => {
                        let constant = self.constant(Constant::Int(value));
                        let at = self.node(line, constant)?;
                        Kind::Item(Box::new((node, at)))
                    }
                    _ => return self.fail("expected name or number"),
                };
                node = self.node(line, kind)?;
            } else if self.skip_operator("[")? {
                node = self.subscript(node, line)?;
            } else if self.is_operator("(") {
                let arguments = self.arguments()?;
                node = self.node(line, Kind::Call(Box::new(node), Box::new(arguments)))?;
            } else {
                return Ok(node);
            }
        }
    }

    fn subscript(&mut self, node: Expression, line: u32) -> Outcome<Expression> {
        let mut items = Vec::new();
        let mut slice = None;
        while !self.is_operator("]") {
            if !items.is_empty() || slice.is_some() {
                self.expect_operator(",")?;
            }
            let start = if self.is_operator(":") { None } else { Some(self.expression(true)?) };
            if !self.skip_operator(":")? {
                items.extend(start);
                continue;
            }
            let mut parts = [start, None, None];
            if !self.is_slice_end() && !self.is_operator(":") {
                parts[1] = Some(self.expression(true)?);
            }
            if self.skip_operator(":")? && !self.is_slice_end() {
                parts[2] = Some(self.expression(true)?);
            }
            slice = Some(parts);
        }
        self.expect_operator("]")?;
        match (slice, items.len()) {
            (Some(parts), 0) => self.node(line, Kind::Slice(Box::new(node), Box::new(parts))),
            (Some(_), _) => Err(Fault::at("slices in tuples are not known", line)),
            (None, 1) => match items.pop() {
                Some(item) => self.node(line, Kind::Item(Box::new((node, item)))),
                None => self.unexpected("]"),
            },
            (None, _) => {
                let items = self.node(line, Kind::Tuple(items))?;
                self.node(line, Kind::Item(Box::new((node, items))))
            }
        }
    }

    fn is_slice_end(&self) -> bool {
        self.is_operator("]") || self.is_operator(",")
    }

    fn arguments(&mut self) -> Outcome<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_operator(")") {
            if !first {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            first = false;
            self.argument(&mut arguments)?;
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }

    fn argument(&mut self, arguments: &mut Arguments) -> Outcome<()> {
        let Arguments { positional, named, more_positional, more_named } = arguments;
        let allowed = |is: bool, parser: &Self| match is {
            true => Ok(()),
            false => parser.fail("invalid syntax for function call expression"),
        };
        if self.skip_operator("*")? {
            allowed(more_positional.is_none() && more_named.is_none(), self)?;
            *more_positional = Some(self.expression(true)?);
        } else if self.skip_operator("**")? {
            allowed(more_named.is_none(), self)?;
            *more_named = Some(self.expression(true)?);
        } else if let Token::Name(name) = self.token
            && *self.look()? == Token::Operator("=")
        {
            allowed(more_named.is_none(), self)?;
            self.advance()?;
            self.advance()?;
            let id = self.id(name);
            if named.len() >= ARGUMENTS_MAX {
                return self.fail(format!("a call with more than {ARGUMENTS_MAX} named arguments"));
            }
            if named.iter().any(|(other, _)| *other == id) {
                return self.fail(format!("keyword argument repeated: {name}"));
            }
            named.push((id, self.expression(true)?));
        } else {
            allowed(more_positional.is_none() && more_named.is_none() && named.is_empty(), self)?;
            positional.push(self.expression(true)?);
        }
        Ok(())
    }

    fn filters_and_tests(&mut self, mut node: Expression) -> Outcome<Expression> {
        loop {
            let line = self.line;
            if self.is_operator("|") {
                match self.filter_chain(Some(node), false)? {
                    Some(filtered) => node = filtered,
                    None => return self.unexpected("name"),
                }
            } else if self.skip_name("is")? {
                node = self.test(node, line)?;
            } else if self.is_operator("(") {
                let arguments = self.arguments()?;
                node = self.node(line, Kind::Call(Box::new(node), Box::new(arguments)))?;
            } else {
                return Ok(node);
            }
        }
    }

    /// `| name(…) | name`; the first bar is not there at the start of a filter block.
    pub(super) fn filter_chain(
        &mut self,
        mut node: Option<Expression>,
        inline: bool,
    ) -> Outcome<Option<Expression>> {
        let mut inline = inline;
        while inline || self.skip_operator("|")? {
            inline = false;
            let line = self.line;
            let name = self.dotted_name(true)?;
            let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
            let kind = Kind::Filter(node.map(Box::new), name, Box::new(arguments));
            node = Some(self.node(line, kind)?);
        }
        Ok(node)
    }

    /// The name of a filter or test; none has dots.
    fn dotted_name(&mut self, is_filter: bool) -> Outcome<u32> {
        let name = self.any_name()?;
        if self.is_operator(".") {
            return self.fail(format!("No filter or test named '{name}.…'."));
        }
        self.check_known(name, is_filter);
        Ok(self.id(name))
    }

    fn test(&mut self, node: Expression, line: u32) -> Outcome<Expression> {
        let negated = self.skip_name("not")?;
        let name = self.dotted_name(false)?;
        let mut arguments = Arguments::default();
        let takes_one = match &self.token {
            Token::Name("else" | "or" | "and") => false,
            Token::Name("is") => return self.fail("You cannot chain multiple tests with is"),
            Token::Name(_) | Token::Text(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Operator(operator) => matches!(*operator, "[" | "{"),
            _ => false,
        };
        if self.is_operator("(") {
            arguments = self.arguments()?;
        } else if takes_one {
            let argument = self.deeper(Self::primary)?;
            arguments.positional.push(self.postfix(argument)?);
        }
        let test = self.node(line, Kind::Test(Box::new(node), name, Box::new(arguments)))?;
        if negated { self.node(line, Kind::Not(Box::new(test))) } else { Ok(test) }
    }
}

/// The depth of the deepest child.
fn depth_below(kind: &Kind) -> u16 {
    let all = |items: &[Expression]| items.iter().map(|item| item.depth).max().unwrap_or(0);
    let both = |both: &(Expression, Expression)| both.0.depth.max(both.1.depth);
    let some = |item: &Option<Expression>| item.as_ref().map_or(0, |item| item.depth);
    let given = |arguments: &Arguments| {
        let named = arguments.named.iter().map(|(_, item)| item.depth).max().unwrap_or(0);
        let more = some(&arguments.more_positional).max(some(&arguments.more_named));
        all(&arguments.positional).max(named).max(more)
    };
    match kind {
        Kind::Constant(_) | Kind::Name(_) => 0,
        Kind::Tuple(items) | Kind::List(items) | Kind::Concat(items) => all(items),
        Kind::Dict(entries) => entries.iter().map(both).max().unwrap_or(0),
        Kind::Not(item) | Kind::Negative(item) | Kind::Positive(item) | Kind::Attribute(item, _) => {
            item.depth
        }
        Kind::Binary(_, items) | Kind::And(items) | Kind::Or(items) | Kind::Item(items) => both(items),
        Kind::Compare(first, others) => {
            others.iter().map(|(_, item)| item.depth).max().unwrap_or(0).max(first.depth)
        }
        Kind::Condition(parts) => parts.test.depth.max(parts.value.depth).max(some(&parts.otherwise)),
        Kind::Slice(item, parts) => parts.iter().map(some).max().unwrap_or(0).max(item.depth),
        Kind::Call(item, arguments) | Kind::Test(item, _, arguments) => item.depth.max(given(arguments)),
        Kind::Filter(item, _, arguments) => item.as_ref().map_or(0, |item| item.depth).max(given(arguments)),
    }
}
