//! Statements.

use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::Template;
use super::arguments::Given;
use super::ast::{Body, Constant, Expression, ExpressionKind, For, Statement, StatementKind, Target};
use super::escape::escaped;
use super::json;
use super::limits::{Buffer, CALL_DEPTH_MAX, Fault, Heap, Outcome};
use super::loops::{LoopState, Pull};
use super::print::write_str;
use super::scope::Scope;
use super::undefined::Undefined;
use super::undefined::fill;
use super::value::{Function, Macro, Namespace, Value, marked};

/// A rendering that is going on.
pub(super) struct Renderer<'t> {
    pub(super) template: &'t Template,
    pub(super) heap: Heap,
    pub(super) now: i64,
    pub(super) constants: Vec<Value>,
    /// Where output goes: the last is the innermost.
    outputs: Vec<Buffer>,
    /// The variables of the template's top level.
    root: Rc<Scope>,
    pub(super) depth: u32,
    /// Whether what is printed is escaped.
    pub(super) autoescape: bool,
    /// Loops that call themselves.
    pub(super) recursive: Vec<&'t For>,
    /// What may refer to itself, for the end.
    pub(super) namespaces: Vec<Rc<Namespace>>,
    captured: Vec<Rc<Scope>>,
    pub(super) loops: Vec<Rc<LoopState>>,
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

const GLOBALS: [(&str, Function); 8] = [
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("lipsum", Function::Lipsum),
    ("cycler", Function::Cycler),
    ("joiner", Function::Joiner),
    ("namespace", Function::Namespace),
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
];

pub(super) fn render(
    template: &Template,
    variables: &Map<String, Json>,
    now: i64,
) -> Result<String, Box<Fault>> {
    let heap = Heap::new();
    let context = context(template, variables, &heap)?;
    let constants = template.lists.constants.iter().map(|constant| value_of(constant, &heap));
    let mut renderer = Renderer {
        template,
        now,
        constants: constants.collect::<Outcome<_>>()?,
        outputs: vec![Buffer::new(&heap)?],
        root: Scope::new(&heap, Some(&context))?,
        heap,
        depth: 0,
        autoescape: false,
        recursive: Vec::new(),
        namespaces: Vec::new(),
        captured: Vec::new(),
        loops: Vec::new(),
    };
    let root = renderer.root.clone();
    if let Some(name) = template.lists.names.iter().position(|name| **name == *"self") {
        root.set(name as u32, Value::Template)?;
    }
    let done = renderer.execute(&template.body, &root);
    let output = renderer.outputs.pop();
    renderer.release();
    match (done, output) {
        (Err(fault), _) => {
            Err(Box::new(Fault { message: fill(&fault.message, &template.lists.names), ..*fault }))
        }
        (Ok(_), Some(output)) => Ok(output.into_text()),
        (Ok(_), None) => Fault::err("there is no output"),
    }
}

/// The variables that are given, as far as the template names them, over those that are always there.
fn context(template: &Template, variables: &Map<String, Json>, heap: &Heap) -> Outcome<Rc<Scope>> {
    let scope = Scope::new(heap, None)?;
    for (id, name) in template.lists.names.iter().enumerate() {
        let global = GLOBALS.iter().find(|(global, _)| *global == &**name);
        if let Some(json) = variables.get(&**name) {
            scope.set(id as u32, json::read(json, heap)?)?;
        } else if let Some((_, function)) = global {
            scope.set(id as u32, Value::Function(*function))?;
        }
    }
    Ok(scope)
}

fn value_of(constant: &Constant, heap: &Heap) -> Outcome<Value> {
    Ok(match constant {
        Constant::None => Value::None,
        Constant::Bool(value) => Value::Bool(*value),
        Constant::Int(value) => Value::Int(*value),
        Constant::Float(value) => Value::Float(*value),
        Constant::Text(text) => heap.text(text.clone())?,
    })
}

impl<'t> Renderer<'t> {
    /// Lets go of everything that may hold itself.
    fn release(&mut self) {
        self.captured.iter().for_each(|scope| scope.clear());
        self.loops.iter().for_each(|state| state.clear());
        let held: Vec<_> =
            self.namespaces.iter().map(|namespace| namespace.attributes.borrow_mut().take()).collect();
        drop(held);
    }

    pub(super) fn name(&self, id: u32) -> &'t str {
        self.template.lists.names.get(id as usize).map_or("", |name| name)
    }

    pub(super) fn names(&self) -> &'t [Box<str>] {
        &self.template.lists.names
    }

    /// One level deeper.
    pub(super) fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= CALL_DEPTH_MAX {
            return Err(Fault::limit("calls, loops and expressions nest too deeply while it is rendered"));
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    pub(super) fn write(&mut self, text: &str) -> Outcome<()> {
        self.outputs.last_mut().map_or(Ok(()), |output| output.push(text))
    }

    pub(super) fn execute(&mut self, body: &'t Body, scope: &Rc<Scope>) -> Outcome<Flow> {
        for statement in body {
            let flow = self.statement(statement, scope).map_err(|mut fault| {
                if fault.line == 0 {
                    fault.line = statement.line;
                }
                fault
            })?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'t Statement, scope: &Rc<Scope>) -> Outcome<Flow> {
        self.heap.step(1)?;
        match &statement.kind {
            StatementKind::Text(text) => self.write(text)?,
            StatementKind::Print(value) => {
                let value = self.evaluate(value, scope)?;
                self.print(&value)?;
            }
            StatementKind::Unset(names) => {
                self.heap.step(names.len())?;
                for name in names {
                    scope.set(*name, self.undefined(*name))?;
                }
            }
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
            StatementKind::Set { target, value } => {
                self.check_namespaces(target, scope)?;
                let value = self.evaluate(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StatementKind::Macro(at) => {
                let value = self.closure(*at, scope)?;
                if let Some(definition) = self.template.lists.macros.get(*at) {
                    scope.set(definition.name, value)?;
                }
            }
            StatementKind::Load(what) => {
                return Fault::err(format!("{what}: there are no other templates to load"));
            }
            _ => return self.deeper(|renderer| renderer.compound(statement, scope)),
        }
        Ok(Flow::Next)
    }

    /// Statements with bodies.
    fn compound(&mut self, statement: &'t Statement, scope: &Rc<Scope>) -> Outcome<Flow> {
        match &statement.kind {
            StatementKind::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.evaluate(test, scope)?.is_true() {
                        return self.execute(body, scope);
                    }
                }
                self.execute(otherwise, scope)
            }
            StatementKind::For(parts) => self.for_statement(parts, scope),
            StatementKind::Scope(body) => {
                let inner = self.inner(scope)?;
                self.execute(body, &inner)
            }
            StatementKind::With { targets, body } => {
                let inner = self.inner(scope)?;
                for (target, value) in targets {
                    let value = self.evaluate(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                self.execute(body, &inner)
            }
            StatementKind::AutoEscape { on, body } => {
                let on = self.evaluate(on, scope)?.is_true();
                let inner = self.inner(scope)?;
                let before = std::mem::replace(&mut self.autoescape, on);
                let flow = self.execute(body, &inner);
                self.autoescape = before;
                flow
            }
            StatementKind::Block { at, scoped, required } => {
                if *required {
                    return Fault::err("Required block not found");
                }
                let root = self.root.clone();
                self.block(*at, if *scoped { scope } else { &root })
            }
            StatementKind::Call { caller, call } => {
                let caller = self.closure(*caller, scope)?;
                let value = self.call_with(call, caller, scope)?;
                self.print(&value)?;
                Ok(Flow::Next)
            }
            StatementKind::SetBlock { target, filter, body } => {
                self.set_block(target, filter.as_ref(), body, scope)
            }
            StatementKind::Filter { filter, body } => {
                let inner = self.inner(scope)?;
                let (flow, text) = self.captured(|renderer| renderer.execute(body, &inner))?;
                if flow == Flow::Next {
                    let value = self.filter_block(filter, text, &inner)?;
                    self.print(&value)?;
                }
                Ok(flow)
            }
            _ => Ok(Flow::Next),
        }
    }

    fn block(&mut self, at: usize, scope: &Rc<Scope>) -> Outcome<Flow> {
        let Some((_, body)) = self.template.lists.blocks.get(at) else {
            return Fault::err("the block is gone");
        };
        let inner = self.inner(scope)?;
        self.execute(body, &inner)
    }

    /// `self.name()`.
    pub(super) fn call_block(&mut self, at: usize) -> Outcome<Value> {
        let root = self.root.clone();
        self.captured(|renderer| renderer.block(at, &root)).map(|(_, text)| text)
    }

    pub(super) fn print(&mut self, value: &Value) -> Outcome<()> {
        let names = self.names();
        if self.autoescape {
            let text = escaped(value, names, &self.heap)?;
            return self.write(&text);
        }
        self.outputs.last_mut().map_or(Ok(()), |output| write_str(output, value, names))
    }

    pub(super) fn inner(&self, scope: &Rc<Scope>) -> Outcome<Rc<Scope>> {
        Scope::new(&self.heap, Some(scope))
    }

    /// What is written meanwhile, as a text.
    pub(super) fn captured<T>(&mut self, work: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<(T, Value)> {
        self.outputs.push(Buffer::new(&self.heap)?);
        let done = work(self);
        let output = self.outputs.pop();
        let done = done?;
        let text = match output {
            Some(output) => marked(self.heap.built(output)?, self.autoescape),
            None => self.heap.text("")?,
        };
        Ok((done, text))
    }

    /// A macro that sees this scope.
    fn closure(&mut self, at: usize, scope: &Rc<Scope>) -> Outcome<Value> {
        let mut outer = Some(scope);
        while let Some(scope) = outer.filter(|scope| !scope.is_captured.get()) {
            scope.is_captured.set(true);
            self.captured.push(scope.clone());
            outer = scope.parent();
        }
        let charge = self.heap.charge(64)?;
        Ok(Value::Macro(Rc::new(Macro { at, scope: scope.clone(), _charge: charge })))
    }

    /// Before the value is computed: attributes are set on namespaces only.
    fn check_namespaces(&self, target: &Target, scope: &Rc<Scope>) -> Outcome<()> {
        match target {
            Target::Attribute(name, _) => match scope.get(*name)? {
                Some(Value::Namespace(_)) => Ok(()),
                _ => Fault::err("cannot assign attribute on non-namespace object"),
            },
            Target::Tuple(targets) => {
                targets.iter().try_for_each(|target| self.check_namespaces(target, scope))
            }
            Target::Name(_) => Ok(()),
        }
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Outcome<()> {
        match target {
            Target::Name(name) => scope.set(*name, value),
            Target::Attribute(name, attribute) => match scope.get(*name)? {
                Some(Value::Namespace(namespace)) => {
                    let attribute = self.name(*attribute);
                    check_attribute(attribute)?;
                    let key = self.heap.text(attribute)?;
                    namespace.attributes.borrow_mut().insert(key, value)
                }
                _ => Fault::err("cannot assign attribute on non-namespace object"),
            },
            Target::Tuple(targets) => {
                let mut pull = match &value {
                    Value::Undefined(_) => Pull::Nothing,
                    value => Pull::new(value).map_err(|_| {
                        Fault::new(format!("cannot unpack non-iterable {} object", value.type_name()))
                    })?,
                };
                let mut values = Vec::with_capacity(targets.len());
                while let Some(value) = pull.next(&self.heap)? {
                    if values.len() == targets.len() {
                        return Fault::err(format!("too many values to unpack (expected {})", targets.len()));
                    }
                    values.push(value);
                }
                if values.len() < targets.len() {
                    let (want, got) = (targets.len(), values.len());
                    return Fault::err(format!("not enough values to unpack (expected {want}, got {got})"));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
                Ok(())
            }
        }
    }

    fn set_block(
        &mut self,
        target: &'t Target,
        filter: Option<&'t Expression>,
        body: &'t Body,
        scope: &Rc<Scope>,
    ) -> Outcome<Flow> {
        let inner = self.inner(scope)?;
        let (flow, text) = self.captured(|renderer| renderer.execute(body, &inner))?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        let value = match filter {
            Some(filter) => self.filter_block(filter, text, &inner)?,
            None => text,
        };
        self.check_namespaces(target, scope)?;
        self.assign(target, value, scope)?;
        Ok(Flow::Next)
    }

    /// A chain of filters on what a block wrote.
    fn filter_block(&mut self, filter: &'t Expression, text: Value, scope: &Rc<Scope>) -> Outcome<Value> {
        let ExpressionKind::Filter(subject, name, arguments) = &filter.kind else {
            return Fault::err("a block is filtered by filters");
        };
        let subject = match subject {
            Some(inner) => self.deeper(|renderer| renderer.filter_block(inner, text, scope))?,
            None => text,
        };
        let given = self.given(arguments, scope)?;
        self.filter(self.name(*name), subject, given)
    }

    fn for_statement(&mut self, parts: &'t For, scope: &Rc<Scope>) -> Outcome<Flow> {
        let value = self.evaluate(&parts.source, scope)?;
        if !parts.recursive {
            return self.run_loop(parts, &value, scope, None, 0);
        }
        let known = self.recursive.iter().position(|other| std::ptr::eq(*other, parts));
        let at = known.unwrap_or_else(|| {
            self.recursive.push(parts);
            self.recursive.len() - 1
        });
        let (_, text) = self.captured(|renderer| renderer.run_loop(parts, &value, scope, Some(at), 0))?;
        self.print(&text)?;
        Ok(Flow::Next)
    }

    /// Runs a loop's body for every item, or what stands for none.
    pub(super) fn run_loop(
        &mut self,
        parts: &'t For,
        value: &Value,
        scope: &Rc<Scope>,
        recursive: Option<usize>,
        depth0: usize,
    ) -> Outcome<Flow> {
        let condition = parts.condition.map(|at| (at, scope.clone()));
        let recursive = recursive.map(|at| (at, scope.clone()));
        let state = LoopState::new(value, condition, recursive, depth0, &self.heap)?;
        let mut is_empty = true;
        while let Some(item) = self.next_item(&state)? {
            state.begin(item.clone());
            let inner = self.inner(scope)?;
            if let Some(name) = self.loop_name() {
                inner.set(name, Value::Loop(state.clone()))?;
            }
            self.assign(&parts.target, item, &inner)?;
            match self.execute(&parts.body, &inner)? {
                Flow::Break => break,
                Flow::Continue => {}
                // Python's mark is set at the end of the body: what leaves it early counts as none.
                Flow::Next => is_empty = false,
            }
        }
        if is_empty && !parts.otherwise.is_empty() {
            let inner = self.inner(scope)?;
            return self.execute(&parts.otherwise, &inner);
        }
        Ok(Flow::Next)
    }

    /// The number of the name `loop`, if the template has it.
    fn loop_name(&self) -> Option<u32> {
        self.template.loop_name
    }

    /// The next item that meets the loop's condition.
    pub(super) fn next_item(&mut self, state: &LoopState) -> Outcome<Option<Value>> {
        let ahead = state.ahead.borrow_mut().pop_front();
        match ahead {
            Some(item) => Ok(Some(item)),
            None => self.pull_item(state),
        }
    }

    /// The next item of the source that meets the condition, whatever was looked at before.
    pub(super) fn pull_item(&mut self, state: &LoopState) -> Outcome<Option<Value>> {
        loop {
            let item = state.source.borrow_mut().next(&self.heap)?;
            let (Some(item), Some((at, scope))) = (&item, &state.condition) else { return Ok(item) };
            let Some(condition) = self.template.lists.conditions.get(*at) else {
                return Ok(Some(item.clone()));
            };
            let inner = self.inner(scope)?;
            self.assign(&condition.target, item.clone(), &inner)?;
            if self.evaluate(&condition.test, &inner)?.is_true() {
                return Ok(Some(item.clone()));
            }
        }
    }

    /// A call with the body of a call block as `caller`.
    fn call_with(&mut self, call: &'t Expression, caller: Value, scope: &Rc<Scope>) -> Outcome<Value> {
        let ExpressionKind::Call(callee, arguments) = &call.kind else { return Fault::err("expected call") };
        let callee = self.evaluate(callee, scope)?;
        let mut given: Given = self.given(arguments, scope)?;
        given.named.push(("caller".into(), caller));
        self.call(&callee, given)
    }

    pub(super) fn undefined(&self, name: u32) -> Value {
        Value::Undefined(Undefined::Name(name))
    }
}

/// Namespaces take no names that begin with an underscore.
pub(super) fn check_attribute(name: &str) -> Outcome<()> {
    if name.starts_with('_') {
        return Fault::err(format!(
            "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{name}'."
        ));
    }
    Ok(())
}
