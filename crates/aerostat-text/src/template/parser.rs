//! Statements of a template.

use std::collections::{HashMap, HashSet};

use super::ast::{
    Body, Condition, Constant, Expression, ExpressionKind, For, MacroDefinition, Statement, StatementKind,
    Target,
};
use super::lexer::{Lexer, Token};
use super::limits::{ARGUMENTS_MAX, Fault, NODES_MAX, Outcome, STATEMENT_DEPTH_MAX, clip};
use super::names::{FILTERS, TESTS};

/// What parsing gives beside the body of the template.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) names: Vec<Box<str>>,
    pub(super) constants: Vec<Constant>,
    pub(super) macros: Vec<MacroDefinition>,
    pub(super) conditions: Vec<Condition>,
    /// Blocks by name.
    pub(super) blocks: Vec<(u32, Body)>,
    /// The names `caller`, `varargs` and `kwargs`, where the template has them.
    pub(super) special: Vec<u32>,
}

pub(super) struct Parser<'s> {
    lexer: Lexer<'s>,
    pub(super) token: Token<'s>,
    pub(super) line: u32,
    ahead: Option<(Token<'s>, u32)>,
    pub(super) lists: Lists,
    ids: HashMap<&'s str, u32>,
    nodes: usize,
    pub(super) depth: u16,
    statements: usize,
    /// Unknown filters and tests are found when they are used, inside `if`; elsewhere here.
    pub(super) soft: bool,
    /// Loops around the statement, up to the next macro.
    loops: usize,
    /// All loops around the statement.
    all_loops: usize,
    blocks: HashSet<&'s str>,
    /// For each macro around: which of the special names its body uses and does not define.
    special: Vec<Special>,
    /// Filters and tests that there are not.
    pub(super) unknown: Vec<Fault>,
}

/// The special variables of a macro that its body uses.
#[derive(Debug, Default, Clone, Copy)]
struct Special {
    used: [bool; 3],
    defined: [bool; 3],
}

const SPECIAL: [&str; 3] = ["caller", "varargs", "kwargs"];

/// Parses a template whose line ends are `\n`.
pub(super) fn parse(source: &str) -> Outcome<(Body, Lists)> {
    let mut parser = Parser {
        lexer: Lexer::new(source),
        token: Token::End,
        line: 1,
        ahead: None,
        lists: Lists::default(),
        ids: HashMap::new(),
        nodes: 0,
        depth: 0,
        statements: 0,
        soft: false,
        loops: 0,
        all_loops: 0,
        blocks: HashSet::new(),
        special: Vec::new(),
        unknown: Vec::new(),
    };
    parser.advance()?;
    let body = parser.body(&[])?;
    match parser.unknown.into_iter().next() {
        Some(unknown) => Err(Box::new(unknown)),
        None => Ok((body, parser.lists)),
    }
}

impl<'s> Parser<'s> {
    pub(super) fn advance(&mut self) -> Outcome<Token<'s>> {
        let (token, line) = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.lexer.next()?,
        };
        self.line = line;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// The token after this one.
    pub(super) fn look(&mut self) -> Outcome<&Token<'s>> {
        if self.ahead.is_none() {
            self.ahead = Some(self.lexer.next()?);
        }
        Ok(self.ahead.as_ref().map_or(&Token::End, |(token, _)| token))
    }

    pub(super) fn fail<T>(&self, message: impl AsRef<str>) -> Outcome<T> {
        Err(Fault::at(message, self.line))
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.token, Token::Operator(found) if found == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.token, Token::Name(found) if found == name)
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> Outcome<bool> {
        let found = self.is_operator(operator);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> Outcome<bool> {
        let found = self.is_name(name);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn expect_operator(&mut self, operator: &str) -> Outcome<()> {
        if !self.skip_operator(operator)? {
            return self.unexpected(operator);
        }
        Ok(())
    }

    fn expect_name(&mut self, name: &str) -> Outcome<()> {
        if !self.skip_name(name)? {
            return self.unexpected(name);
        }
        Ok(())
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Outcome<T> {
        match &self.token {
            Token::End => self.fail(format!("unexpected end of template, expected '{expected}'")),
            token => self.fail(format!("expected token '{expected}', got '{}'", token.describe())),
        }
    }

    pub(super) fn any_name(&mut self) -> Outcome<&'s str> {
        match self.advance()? {
            Token::Name(name) => Ok(name),
            token => {
                self.token = token;
                self.unexpected("name")
            }
        }
    }

    fn expect_block_end(&mut self) -> Outcome<()> {
        if self.token != Token::BlockEnd {
            return self.unexpected("end of statement block");
        }
        self.advance().map(drop)
    }

    /// The number of a name.
    pub(super) fn id(&mut self, name: &'s str) -> u32 {
        let next = self.lists.names.len() as u32;
        let names = &mut self.lists.names;
        *self.ids.entry(name).or_insert_with(|| {
            names.push(name.into());
            next
        })
    }

    pub(super) fn constant(&mut self, constant: Constant) -> ExpressionKind {
        self.lists.constants.push(constant);
        ExpressionKind::Constant(self.lists.constants.len() as u32 - 1)
    }

    /// Counts a node.
    pub(super) fn count(&mut self) -> Outcome<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return self.fail(format!("the template has more than {NODES_MAX} parts"));
        }
        Ok(())
    }

    /// Notes that a name is read.
    pub(super) fn note_load(&mut self, name: &str) {
        if let Some(at) = SPECIAL.iter().position(|special| *special == name) {
            for special in &mut self.special {
                special.used[at] |= !special.defined[at];
            }
        }
    }

    fn note_store(&mut self, name: &str) {
        if let Some(at) = SPECIAL.iter().position(|special| *special == name) {
            self.special.iter_mut().for_each(|special| special.defined[at] = true);
        }
    }

    /// Statements and data up to a tag of one of these names, which is left standing, or to the end of the template.
    fn body(&mut self, ends: &[&str]) -> Outcome<Body> {
        self.statements += 1;
        if self.statements > STATEMENT_DEPTH_MAX {
            return self.fail(format!("statements nest more than {STATEMENT_DEPTH_MAX} levels deep"));
        }
        let mut body = Vec::new();
        loop {
            let line = self.line;
            match &self.token {
                Token::Data(data) => {
                    let text = (*data).into();
                    self.count()?;
                    body.push(Statement { line, kind: StatementKind::Text(text) });
                    self.advance()?;
                }
                Token::VariableBegin => {
                    self.advance()?;
                    let value = self.tuple(true, &[], false)?;
                    body.push(Statement { line, kind: StatementKind::Print(value) });
                    if self.token != Token::VariableEnd {
                        return self.unexpected("end of print statement");
                    }
                    self.advance()?;
                }
                Token::BlockBegin => {
                    self.advance()?;
                    if matches!(self.token, Token::Name(name) if ends.contains(&name)) {
                        break;
                    }
                    let line = self.line;
                    self.count()?;
                    self.statement(&mut body, line)?;
                    self.expect_block_end()?;
                }
                _ if ends.is_empty() => break,
                _ => {
                    let ends = ends.join("' or '");
                    return self.fail(format!("unexpected end of template, looking for '{ends}'"));
                }
            }
        }
        self.statements -= 1;
        Ok(body)
    }

    /// The end of a tag, and statements up to one of these names, which is taken.
    fn block(&mut self, ends: &[&str]) -> Outcome<(Body, &'s str)> {
        self.skip_operator(":")?;
        self.expect_block_end()?;
        let body = self.body(ends)?;
        let end = self.any_name()?;
        Ok((body, end))
    }

    /// A block with a scope of its own, in which unknown filters are found now.
    fn scoped_block(&mut self, ends: &[&str]) -> Outcome<(Body, &'s str)> {
        let soft = std::mem::replace(&mut self.soft, false);
        let block = self.block(ends)?;
        self.soft = soft;
        Ok(block)
    }

    /// The body of a macro or the like: loops outside are not its own.
    fn function_block(&mut self, end: &str) -> Outcome<Body> {
        let loops = std::mem::replace(&mut self.loops, 0);
        let (body, _) = self.scoped_block(&[end])?;
        self.loops = loops;
        Ok(body)
    }

    fn statement(&mut self, body: &mut Body, line: u32) -> Outcome<()> {
        let Token::Name(name) = self.token else { return self.fail("tag name expected") };
        self.advance()?;
        let kind = match name {
            "if" => self.if_statement()?,
            "for" => self.for_statement()?,
            "set" => self.set_statement()?,
            "macro" => self.macro_statement(line)?,
            "call" => self.call_statement(line)?,
            "filter" => {
                let soft = std::mem::replace(&mut self.soft, false);
                let filter = self.filter_chain(None, true)?;
                let (body, _) = self.block(&["endfilter"])?;
                self.soft = soft;
                match filter {
                    Some(filter) => StatementKind::Filter { filter, body },
                    None => return self.unexpected("name"),
                }
            }
            "with" => self.with_statement()?,
            "generation" => StatementKind::Scope(self.function_block("endgeneration")?),
            "autoescape" => {
                let on = self.expression(true)?;
                let (body, _) = self.scoped_block(&["endautoescape"])?;
                StatementKind::AutoEscape { on, body }
            }
            "print" => {
                let mut first = true;
                while self.token != Token::BlockEnd {
                    if !std::mem::replace(&mut first, false) {
                        self.expect_operator(",")?;
                    }
                    let value = self.expression(true)?;
                    body.push(Statement { line, kind: StatementKind::Print(value) });
                }
                return Ok(());
            }
            "block" => self.block_statement()?,
            "break" | "continue" if self.loops == 0 => return self.fail(format!("'{name}' outside loop")),
            "break" => StatementKind::Break,
            "continue" => StatementKind::Continue,
            "extends" | "include" | "import" | "from" => self.load_statement(name)?,
            other => return self.fail(format!("Encountered unknown tag '{other}'")),
        };
        body.push(Statement { line, kind });
        Ok(())
    }

    fn if_statement(&mut self) -> Outcome<StatementKind> {
        let soft = std::mem::replace(&mut self.soft, true);
        let (mut branches, mut otherwise) = (Vec::new(), Vec::new());
        loop {
            let test = self.tuple(false, &[], false)?;
            let (body, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match end {
                "elif" => continue,
                "else" => otherwise = self.block(&["endif"])?.0,
                _ => {}
            }
            break;
        }
        self.soft = soft;
        Ok(StatementKind::If { branches, otherwise })
    }

    fn for_statement(&mut self) -> Outcome<StatementKind> {
        self.all_loops += 1;
        let target = self.target(&["in"], false)?;
        self.expect_name("in")?;
        let source = self.tuple(false, &["recursive"], false)?;
        let soft = std::mem::replace(&mut self.soft, false);
        let condition = match self.skip_name("if")? {
            true => {
                let test = self.expression(true)?;
                self.lists.conditions.push(Condition { target: target.clone(), test });
                Some(self.lists.conditions.len() - 1)
            }
            false => None,
        };
        let recursive = self.skip_name("recursive")?;
        self.loops += 1;
        let (body, end) = self.block(&["endfor", "else"])?;
        self.loops -= 1;
        let outside = if recursive { std::mem::replace(&mut self.loops, 0) } else { self.loops };
        let otherwise = if end == "else" { self.block(&["endfor"])?.0 } else { Vec::new() };
        self.loops = outside;
        self.soft = soft;
        self.all_loops -= 1;
        let parts = For { target, source, condition, recursive, body, otherwise };
        Ok(StatementKind::For(Box::new(parts)))
    }

    fn set_statement(&mut self) -> Outcome<StatementKind> {
        let target = self.target(&[], true)?;
        if self.skip_operator("=")? {
            let value = self.tuple(true, &[], false)?;
            return Ok(StatementKind::Set { target, value });
        }
        let soft = std::mem::replace(&mut self.soft, false);
        let filter = self.filter_chain(None, false)?;
        self.soft = soft;
        let (body, _) = self.scoped_block(&["endset"])?;
        Ok(StatementKind::SetBlock { target, filter, body })
    }

    fn with_statement(&mut self) -> Outcome<StatementKind> {
        let mut targets = Vec::new();
        while self.token != Token::BlockEnd {
            if !targets.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_operator("=")?;
            let value = self.expression(true)?;
            targets.push((target, value));
        }
        let (body, _) = self.scoped_block(&["endwith"])?;
        Ok(StatementKind::With { targets, body })
    }

    fn macro_statement(&mut self, line: u32) -> Outcome<StatementKind> {
        let name = self.any_name()?;
        self.check_loop_name(name)?;
        self.note_store(name);
        let name = self.id(name);
        self.function(line, name, None, "endmacro").map(|(at, _)| StatementKind::Macro(at))
    }

    fn call_statement(&mut self, line: u32) -> Outcome<StatementKind> {
        let (caller, call) = self.function(line, 0, Some(()), "endcall")?;
        match call {
            Some(call) => Ok(StatementKind::Call { caller, call }),
            None => self.fail("expected call"),
        }
    }

    /// The parameters, the call if this is a call block, and the body.
    fn function(
        &mut self,
        line: u32,
        name: u32,
        call_block: Option<()>,
        end: &str,
    ) -> Outcome<(usize, Option<Expression>)> {
        self.special.push(Special::default());
        let (mut parameters, mut defaults) = (Vec::new(), Vec::new());
        let mut named = [false; 3];
        if call_block.is_none() || self.is_operator("(") {
            let soft = std::mem::replace(&mut self.soft, false);
            self.parameters(&mut parameters, &mut defaults, &mut named)?;
            self.soft = soft;
        }
        // What the defaults use is looked up when the macro is called, but makes nothing special.
        if let Some(special) = self.special.last_mut() {
            *special = Special { used: [false; 3], defined: [false; 3] };
        }
        let call = call_block.map(|()| self.expression(true)).transpose()?;
        if call.as_ref().is_some_and(|call| !matches!(call.kind, ExpressionKind::Call(..))) {
            return self.fail("expected call");
        }
        if let Some(special) = self.special.last_mut() {
            *special = Special::default();
        }
        let body = self.function_block(end)?;
        let special = self.special.pop().unwrap_or_default();
        let [caller, varargs, kwargs] = special.used;
        let first_default = parameters.len() - defaults.len();
        let at = parameters
            .iter()
            .position(|id| self.lists.names.get(*id as usize).is_some_and(|n| **n == *"caller"));
        if caller && at.is_some_and(|at| at < first_default) {
            let message = "the special \"caller\" argument must be omitted or be given a default";
            return Err(Fault::at(message, line));
        }
        self.lists.macros.push(MacroDefinition {
            name,
            is_call_block: call_block.is_some(),
            parameters,
            defaults,
            body,
            takes_caller: caller,
            takes_varargs: varargs && !named[1],
            takes_kwargs: kwargs && !named[2],
        });
        Ok((self.lists.macros.len() - 1, call))
    }

    fn parameters(
        &mut self,
        parameters: &mut Vec<u32>,
        defaults: &mut Vec<Expression>,
        named: &mut [bool; 3],
    ) -> Outcome<()> {
        self.expect_operator("(")?;
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.any_name()?;
            if let Some(at) = SPECIAL.iter().position(|special| *special == name) {
                named[at] = true;
            }
            let id = self.id(name);
            if parameters.len() >= ARGUMENTS_MAX {
                return self.fail(format!("a macro of more than {ARGUMENTS_MAX} parameters"));
            }
            if parameters.contains(&id) {
                return self.fail(format!("duplicate argument '{name}' in a macro"));
            }
            if self.skip_operator("=")? {
                defaults.push(self.expression(true)?);
            } else if !defaults.is_empty() {
                return self.fail("non-default argument follows default argument");
            }
            parameters.push(id);
            self.count()?;
        }
        self.expect_operator(")")
    }

    fn block_statement(&mut self) -> Outcome<StatementKind> {
        let name = self.any_name()?;
        if !self.blocks.insert(name) {
            return self.fail(format!("block '{}' defined twice", clip(name)));
        }
        let scoped = self.skip_name("scoped")?;
        let required = self.skip_name("required")?;
        let body = self.function_block("endblock")?;
        let blank = |statement: &Statement| matches!(&statement.kind, StatementKind::Text(text) if text.trim().is_empty());
        if required && !body.iter().all(blank) {
            return self.fail("Required blocks can only contain comments or whitespace");
        }
        self.skip_name(name)?;
        let id = self.id(name);
        self.lists.blocks.push((id, body));
        Ok(StatementKind::Block { at: self.lists.blocks.len() - 1, scoped, required })
    }

    /// Statements that load other templates are parsed, and fail when they are come to.
    fn load_statement(&mut self, name: &'s str) -> Outcome<StatementKind> {
        self.expression(true)?;
        match name {
            "import" => {
                self.expect_name("as")?;
                self.any_name()?;
            }
            "from" => {
                self.expect_name("import")?;
                while !matches!(self.token, Token::BlockEnd) {
                    self.any_name()?;
                    if !self.skip_operator(",")? && !matches!(self.token, Token::Name(_)) {
                        break;
                    }
                }
            }
            _ => {}
        }
        while matches!(self.token, Token::Name("ignore" | "missing" | "with" | "without" | "context")) {
            self.advance()?;
        }
        Ok(StatementKind::Load(match name {
            "extends" => "extends",
            "include" => "include",
            _ => "import",
        }))
    }

    fn check_loop_name(&self, name: &str) -> Outcome<()> {
        if name == "loop" && self.all_loops > 0 {
            return self.fail("Can't assign to special loop variable in for-loop target");
        }
        Ok(())
    }

    /// What is assigned to: names, attributes of namespaces if `attributes`, and tuples of them.
    fn target(&mut self, ends: &[&str], attributes: bool) -> Outcome<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            if !targets.is_empty() {
                self.expect_operator(",")?;
            }
            if self.is_tuple_end(ends) {
                break;
            }
            targets.push(self.one_target(attributes)?);
            if !self.is_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match (is_tuple, targets.pop()) {
            (false, Some(target)) => Ok(target),
            (true, Some(target)) => {
                targets.push(target);
                Ok(Target::Tuple(targets))
            }
            (_, None) => self.fail(format!("Expected an expression, got '{}'", self.token.describe())),
        }
    }

    fn one_target(&mut self, attributes: bool) -> Outcome<Target> {
        self.count()?;
        self.depth += 1;
        if self.depth > 50 {
            return self.fail("targets nest too deeply");
        }
        let target = if self.skip_operator("(")? {
            if self.skip_operator(")")? {
                Target::Tuple(Vec::new())
            } else {
                let target = self.target(&[], false)?;
                self.expect_operator(")")?;
                target
            }
        } else {
            let Token::Name(name) = self.token else {
                return self.fail(format!("can't assign to '{}'", self.token.describe()));
            };
            if matches!(name, "true" | "false" | "True" | "False" | "none" | "None") {
                return self.fail("can't assign to 'const'");
            }
            self.advance()?;
            if attributes && self.skip_operator(".")? {
                let attribute = self.any_name()?;
                self.note_load(name);
                Target::Attribute(self.id(name), self.id(attribute))
            } else {
                self.check_loop_name(name)?;
                self.note_store(name);
                Target::Name(self.id(name))
            }
        };
        self.depth -= 1;
        Ok(target)
    }

    /// Notes a filter or test that there is not, unless it stands inside an `if`, where it may never be come to.
    pub(super) fn check_known(&mut self, name: &str, is_filter: bool) {
        let known = if is_filter { FILTERS } else { TESTS };
        if !self.soft && !known.contains(&name) {
            let kind = if is_filter { "filter" } else { "test" };
            self.unknown.push(*Fault::at(format!("No {kind} named '{}'.", clip(name)), self.line));
        }
    }

    pub(super) fn is_tuple_end(&self, ends: &[&str]) -> bool {
        match self.token {
            Token::VariableEnd | Token::BlockEnd | Token::Operator(")") => true,
            Token::Name(name) => ends.contains(&name),
            _ => false,
        }
    }
}
