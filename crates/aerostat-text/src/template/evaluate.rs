//! Expressions.

use std::cmp::Ordering;
use std::rc::Rc;

use super::arguments::Given;
use super::ast::{Arguments, Comparison, Expression, ExpressionKind as Kind, Operator};
use super::compare::{contains, equal, equal_inside, order};
use super::escape::escaped;
use super::execute::Renderer;
use super::limits::{Buffer, Fault, Outcome};
use super::loops::{Pull, collect};
use super::operators::{binary, signed};
use super::print::write_str;
use super::scope::Scope;
use super::undefined::Undefined;
use super::value::{Dict, Value, marked};

/// A constant, or a constant with a sign.
fn is_number(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::Constant(_) => true,
        Kind::Negative(inner) | Kind::Positive(inner) => is_number(inner),
        _ => false,
    }
}

fn is_negative_constant(expression: &Expression) -> bool {
    matches!(&expression.kind, Kind::Negative(inner) if matches!(inner.kind, Kind::Constant(_)))
}

impl<'t> Renderer<'t> {
    pub(super) fn evaluate(&mut self, expression: &'t Expression, scope: &Rc<Scope>) -> Outcome<Value> {
        self.heap.step(1)?;
        match &expression.kind {
            Kind::Constant(at) => Ok(self.constants.get(*at as usize).cloned().unwrap_or(Value::None)),
            Kind::Name(name) => {
                let value = self.variable(*name, scope)?;
                if let Value::Loop(state) = &value
                    && !state.is_registered.replace(true)
                {
                    self.loops.push(state.clone());
                }
                Ok(value)
            }
            _ => self.deeper(|renderer| renderer.operation(expression, scope)).map_err(|mut fault| {
                if fault.line == 0 {
                    fault.line = expression.line;
                }
                fault
            }),
        }
    }

    fn variable(&mut self, name: u32, scope: &Rc<Scope>) -> Outcome<Value> {
        Ok(scope.get(name)?.unwrap_or_else(|| self.undefined(name)))
    }

    /// What an attribute is looked up on: a loop is not kept for it.
    fn subject(&mut self, expression: &'t Expression, scope: &Rc<Scope>) -> Outcome<Value> {
        match expression.kind {
            Kind::Name(name) => self.variable(name, scope),
            _ => self.evaluate(expression, scope),
        }
    }

    fn operation(&mut self, expression: &'t Expression, scope: &Rc<Scope>) -> Outcome<Value> {
        match &expression.kind {
            Kind::Attribute(object, name) => {
                let object = self.subject(object, scope)?;
                self.attribute(&object, *name)
            }
            Kind::Item(both) => {
                let object = self.subject(&both.0, scope)?;
                let key = self.evaluate(&both.1, scope)?;
                self.item(&object, &key)
            }
            Kind::Not(value) => Ok(Value::Bool(!self.evaluate(value, scope)?.is_true())),
            Kind::And(both) => {
                let left = self.evaluate(&both.0, scope)?;
                if left.is_true() { self.evaluate(&both.1, scope) } else { Ok(left) }
            }
            Kind::Or(both) => {
                let left = self.evaluate(&both.0, scope)?;
                if left.is_true() { Ok(left) } else { self.evaluate(&both.1, scope) }
            }
            Kind::Condition(parts) => {
                if self.evaluate(&parts.test, scope)?.is_true() {
                    return self.evaluate(&parts.value, scope);
                }
                match &parts.otherwise {
                    Some(otherwise) => self.evaluate(otherwise, scope),
                    None => Ok(Value::Undefined(Undefined::Hint(
                        "the inline if-expression evaluated to false and no else section was defined.",
                    ))),
                }
            }
            Kind::Filter(Some(subject), name, arguments) => {
                let subject = self.evaluate(subject, scope)?;
                let given = self.given(arguments, scope)?;
                self.filter(self.name(*name), subject, given)
            }
            Kind::Filter(None, ..) => Fault::err("a filter without a value"),
            Kind::Test(subject, name, arguments) => {
                let subject = self.evaluate(subject, scope)?;
                let given = self.given(arguments, scope)?;
                self.test(self.name(*name), &subject, given).map(Value::Bool)
            }
            Kind::Call(callee, arguments) => self.call_expression(callee, arguments, scope),
            _ => self.plain_operation(expression, scope),
        }
    }

    /// Operations without names.
    fn plain_operation(&mut self, expression: &'t Expression, scope: &Rc<Scope>) -> Outcome<Value> {
        match &expression.kind {
            Kind::Binary(operator, both) => {
                let left = self.evaluate(&both.0, scope)?;
                let right = self.evaluate(&both.1, scope)?;
                if *operator == Operator::Power && is_negative_constant(&both.0) && !is_number(&both.1) {
                    // jinja2 writes the constant without brackets, before which Python takes the power.
                    let power = binary(*operator, &signed(&left, true)?, &right, self.names(), &self.heap)?;
                    return signed(&power, true);
                }
                binary(*operator, &left, &right, self.names(), &self.heap)
            }
            Kind::Negative(value) => signed(&self.evaluate(value, scope)?, true),
            Kind::Positive(value) => signed(&self.evaluate(value, scope)?, false),
            Kind::Concat(parts) => {
                let mut values = Vec::with_capacity(parts.len());
                for part in parts {
                    values.push(self.evaluate(part, scope)?);
                }
                let mut out = Buffer::new(&self.heap)?;
                if self.autoescape && values.iter().any(|value| value.as_text().is_some_and(|text| text.safe))
                {
                    for value in &values {
                        out.push(&escaped(value, self.names(), &self.heap)?)?;
                    }
                    return Ok(marked(self.heap.built(out)?, true));
                }
                values.iter().try_for_each(|value| write_str(&mut out, value, self.names()))?;
                self.heap.built(out)
            }
            Kind::Compare(first, others) => {
                let mut left = self.evaluate(first, scope)?;
                let mut result = false;
                for (comparison, right) in others {
                    let right = self.evaluate(right, scope)?;
                    result = self.compare(*comparison, &left, &right)?;
                    if !result {
                        break;
                    }
                    left = right;
                }
                Ok(Value::Bool(result))
            }
            Kind::Tuple(items) => self.items_of(items, scope)?.tuple(),
            Kind::List(items) => self.items_of(items, scope)?.list(),
            Kind::Dict(entries) => {
                let mut dict = Dict::new(&self.heap)?;
                for (key, value) in entries {
                    let key = self.evaluate(key, scope)?;
                    dict.insert(key, self.evaluate(value, scope)?)?;
                }
                Ok(Value::Dict(dict.into()))
            }
            Kind::Slice(object, parts) => {
                let object = self.evaluate(object, scope)?;
                let mut bounds = [Value::None, Value::None, Value::None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *bound = self.evaluate(part, scope)?;
                    }
                }
                self.slice(&object, &bounds)
            }
            _ => Fault::err("an expression of another kind"),
        }
    }

    fn items_of(
        &mut self,
        items: &'t [Expression],
        scope: &Rc<Scope>,
    ) -> Outcome<super::value::ItemsBuilder> {
        let mut values = self.heap.items()?;
        for item in items {
            values.push(self.evaluate(item, scope)?)?;
        }
        Ok(values)
    }

    pub(super) fn compare(&self, comparison: Comparison, one: &Value, two: &Value) -> Outcome<bool> {
        let ordered = |operator: &str| order(one, two, operator, &self.heap);
        Ok(match comparison {
            Comparison::Equal => equal(one, two, &self.heap)?,
            Comparison::NotEqual => !equal(one, two, &self.heap)?,
            Comparison::Less => ordered("<")? == Some(Ordering::Less),
            Comparison::LessOrEqual => ordered("<=")?.is_some_and(Ordering::is_le),
            Comparison::Greater => ordered(">")? == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => ordered(">=")?.is_some_and(Ordering::is_ge),
            Comparison::In => self.is_in(one, two)?,
            Comparison::NotIn => !self.is_in(one, two)?,
        })
    }

    /// `item in container`, where iterators are used up to the item.
    pub(super) fn is_in(&self, item: &Value, container: &Value) -> Outcome<bool> {
        let Value::Iterator(_) = container else { return contains(container, item, &self.heap) };
        let mut pull = Pull::new(container)?;
        while let Some(other) = pull.next(&self.heap)? {
            if equal_inside(&other, item, &self.heap)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The arguments of a call.
    pub(super) fn given(&mut self, arguments: &'t Arguments, scope: &Rc<Scope>) -> Outcome<Given> {
        let mut given = Given::default();
        for argument in &arguments.positional {
            given.positional.push(self.evaluate(argument, scope)?);
        }
        for (name, argument) in &arguments.named {
            let value = self.evaluate(argument, scope)?;
            given.name(self.name(*name), value, &self.heap)?;
        }
        if let Some(more) = &arguments.more_positional {
            let more = self.evaluate(more, scope)?;
            given.positional.append(collect(&more, &self.heap)?.values());
        }
        if let Some(more) = &arguments.more_named {
            let more = self.evaluate(more, scope)?;
            let Value::Dict(dict) = &more else {
                return Fault::err(format!("argument after ** must be a mapping, not {}", more.type_name()));
            };
            for (key, value) in dict.entries() {
                self.heap.step(given.named.len() + 1)?;
                let Value::Text(key) = key else { return Fault::err("keywords must be strings") };
                if given.named.iter().any(|(name, _)| **name == **key) {
                    return Fault::err(format!("got multiple values for keyword argument '{}'", &**key));
                }
                given.name(key, value.clone(), &self.heap)?;
            }
        }
        Ok(given)
    }
}
