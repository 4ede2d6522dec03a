//! Which variables a part of a template sets before it reads them. jinja2 finds that out when it compiles: such a
//! variable is undefined in that part until it is set, though the template be given one of that name.

use std::collections::HashSet;

use super::ast::{Arguments, Body, Expression, ExpressionKind as Kind, Statement, StatementKind, Target};
use super::parser::Lists;

/// The names that a part of the template knows, and the part around it.
struct Symbols<'p> {
    known: HashSet<u32>,
    around: Option<&'p Symbols<'p>>,
    /// Set before they are read, outside branches.
    unset: Vec<u32>,
}

/// Puts a statement that unsets them at the beginning of every part that has such variables.
pub(super) fn resolve(body: &mut Body, lists: &mut Lists) {
    let is_special = |name: &str| matches!(name, "caller" | "varargs" | "kwargs");
    let names = lists.names.iter().enumerate().filter(|(_, name)| is_special(name));
    lists.special = names.map(|(id, _)| id as u32).collect();
    part(body, lists, None, &[]);
    for at in 0..lists.blocks.len() {
        let mut block = lists.blocks.get_mut(at).map(|(_, body)| std::mem::take(body)).unwrap_or_default();
        part(&mut block, lists, None, &[]);
        if let Some((_, body)) = lists.blocks.get_mut(at) {
            *body = block;
        }
    }
}

/// A part with a scope of its own, in which these names are set from the beginning.
fn part(body: &mut Body, lists: &mut Lists, around: Option<&Symbols>, given: &[u32]) {
    part_with(body, lists, around, given, &[]);
}

/// The same, reading these expressions first.
fn part_with(
    body: &mut Body,
    lists: &mut Lists,
    around: Option<&Symbols>,
    given: &[u32],
    read: &[&Expression],
) {
    let known = given.iter().copied().collect();
    let mut symbols = Symbols { known, around, unset: Vec::new() };
    read.iter().for_each(|expression| symbols.read(expression));
    symbols.statements(body, lists, false);
    for statement in body.iter_mut() {
        inside(statement, lists, &symbols);
    }
    if !symbols.unset.is_empty() {
        let line = body.first().map_or(0, |statement| statement.line);
        body.insert(0, Statement { line, kind: StatementKind::Unset(symbols.unset) });
    }
}

/// The parts inside a statement.
fn inside(statement: &mut Statement, lists: &mut Lists, symbols: &Symbols) {
    match &mut statement.kind {
        StatementKind::If { branches, otherwise } => {
            let bodies = branches.iter_mut().map(|(_, body)| body).chain([otherwise]);
            bodies.flatten().for_each(|statement| inside(statement, lists, symbols));
        }
        StatementKind::For(parts) => {
            let mut given = Vec::new();
            targets(&parts.target, &mut given);
            part(&mut parts.body, lists, Some(symbols), &given);
            part(&mut parts.otherwise, lists, Some(symbols), &[]);
        }
        StatementKind::Macro(at) | StatementKind::Call { caller: at, .. } => {
            let at = *at;
            let Some(definition) = lists.macros.get_mut(at) else { return };
            let mut body = std::mem::take(&mut definition.body);
            let mut given = definition.parameters.clone();
            given.extend(&lists.special);
            part(&mut body, lists, Some(symbols), &given);
            if let Some(definition) = lists.macros.get_mut(at) {
                definition.body = body;
            }
        }
        StatementKind::With { targets: pairs, body } => {
            let mut given = Vec::new();
            pairs.iter().for_each(|(target, _)| targets(target, &mut given));
            part(body, lists, Some(symbols), &given);
        }
        StatementKind::AutoEscape { on, body } => part_with(body, lists, Some(symbols), &[], &[on]),
        StatementKind::SetBlock { body, .. }
        | StatementKind::Filter { body, .. }
        | StatementKind::Scope(body) => {
            part(body, lists, Some(symbols), &[]);
        }
        _ => {}
    }
}

/// The names of a target.
fn targets(target: &Target, names: &mut Vec<u32>) {
    match target {
        Target::Name(name) => names.push(*name),
        Target::Attribute(..) => {}
        Target::Tuple(all) => all.iter().for_each(|target| targets(target, names)),
    }
}

impl Symbols<'_> {
    fn is_known(&self, name: u32) -> bool {
        self.known.contains(&name) || self.around.is_some_and(|around| around.is_known(name))
    }

    fn load(&mut self, name: u32) {
        if !self.is_known(name) {
            self.known.insert(name);
        }
    }

    fn store(&mut self, name: u32, in_branch: bool) {
        if self.known.contains(&name) {
            return;
        }
        let is_outside = self.around.is_some_and(|around| around.is_known(name));
        self.known.insert(name);
        if !is_outside && !in_branch {
            self.unset.push(name);
        }
    }

    fn target(&mut self, target: &Target, in_branch: bool) {
        match target {
            Target::Name(name) => self.store(*name, in_branch),
            Target::Attribute(name, _) => self.load(*name),
            Target::Tuple(all) => all.iter().for_each(|target| self.target(target, in_branch)),
        }
    }

    /// What statements read and set in this part, in their order.
    fn statements(&mut self, body: &Body, lists: &Lists, in_branch: bool) {
        for statement in body {
            match &statement.kind {
                StatementKind::Print(value) => self.read(value),
                StatementKind::If { branches, otherwise } => {
                    for (test, body) in branches {
                        self.read(test);
                        self.statements(body, lists, true);
                    }
                    self.statements(otherwise, lists, true);
                }
                StatementKind::For(parts) => self.read(&parts.source),
                StatementKind::Set { target, value } => {
                    self.read(value);
                    self.target(target, in_branch);
                }
                StatementKind::SetBlock { target, .. } => self.target(target, in_branch),
                StatementKind::Macro(at) => {
                    if let Some(definition) = lists.macros.get(*at) {
                        self.store(definition.name, in_branch);
                    }
                }
                StatementKind::Call { call, .. } => self.read(call),
                StatementKind::Filter { filter, .. } => self.read(filter),
                StatementKind::With { targets, .. } => targets.iter().for_each(|(_, value)| self.read(value)),
                _ => {}
            }
        }
    }

    fn read(&mut self, expression: &Expression) {
        match &expression.kind {
            Kind::Constant(_) => {}
            Kind::Name(name) => self.load(*name),
            Kind::Tuple(items) | Kind::List(items) | Kind::Concat(items) => {
                items.iter().for_each(|item| self.read(item));
            }
            Kind::Dict(entries) => entries.iter().for_each(|(key, value)| {
                self.read(key);
                self.read(value);
            }),
            Kind::Not(value) | Kind::Negative(value) | Kind::Positive(value) | Kind::Attribute(value, _) => {
                self.read(value);
            }
            Kind::Binary(_, both) | Kind::And(both) | Kind::Or(both) | Kind::Item(both) => {
                self.read(&both.0);
                self.read(&both.1);
            }
            Kind::Compare(first, others) => {
                self.read(first);
                others.iter().for_each(|(_, value)| self.read(value));
            }
            Kind::Condition(parts) => {
                self.read(&parts.test);
                self.read(&parts.value);
                parts.otherwise.iter().for_each(|value| self.read(value));
            }
            Kind::Slice(value, parts) => {
                self.read(value);
                parts.iter().flatten().for_each(|part| self.read(part));
            }
            Kind::Call(value, arguments) | Kind::Test(value, _, arguments) => {
                self.read(value);
                self.arguments(arguments);
            }
            Kind::Filter(value, _, arguments) => {
                value.iter().for_each(|value| self.read(value));
                self.arguments(arguments);
            }
        }
    }

    fn arguments(&mut self, arguments: &Arguments) {
        let named = arguments.named.iter().map(|(_, value)| value);
        let more = arguments.more_positional.iter().chain(&arguments.more_named);
        arguments.positional.iter().chain(named).chain(more).for_each(|value| self.read(value));
    }
}
