//! Variables.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::limits::{Charge, Heap, Outcome};
use super::value::Value;

/// What a scope and a variable take, in bytes.
const SCOPE_BYTES: usize = 256;
const VARIABLE_BYTES: usize = 64;

/// The variables of a part of the template, and the scope around it.
#[derive(Debug)]
pub(super) struct Scope {
    variables: RefCell<Vec<(u32, Value)>>,
    parent: Option<Rc<Scope>>,
    /// Whether a macro holds it, so that it is cleared at the end.
    pub(super) is_captured: Cell<bool>,
    charge: RefCell<Charge>,
    heap: Heap,
}

impl Scope {
    pub(super) fn new(heap: &Heap, parent: Option<&Rc<Scope>>) -> Outcome<Rc<Self>> {
        Ok(Rc::new(Scope {
            variables: RefCell::new(Vec::new()),
            parent: parent.cloned(),
            is_captured: Cell::new(false),
            charge: RefCell::new(heap.charge(SCOPE_BYTES)?),
            heap: heap.clone(),
        }))
    }

    pub(super) fn parent(&self) -> Option<&Rc<Scope>> {
        self.parent.as_ref()
    }

    /// The value of a variable, from here outwards.
    pub(super) fn get(&self, name: u32) -> Outcome<Option<Value>> {
        let mut scope = self;
        loop {
            let variables = scope.variables.borrow();
            self.heap.step(variables.len() / 16 + 1)?;
            if let Some((_, value)) = variables.iter().find(|(other, _)| *other == name) {
                return Ok(Some(value.clone()));
            }
            match &scope.parent {
                Some(parent) => scope = parent,
                None => return Ok(None),
            }
        }
    }

    /// Sets a variable here.
    pub(super) fn set(&self, name: u32, value: Value) -> Outcome<()> {
        let mut variables = self.variables.borrow_mut();
        self.heap.step(variables.len() / 16 + 1)?;
        match variables.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => {
                let old = std::mem::replace(old, value);
                drop(variables);
                drop(old);
            }
            None => {
                self.charge.borrow_mut().add(VARIABLE_BYTES)?;
                variables.push((name, value));
            }
        }
        Ok(())
    }

    /// Forgets all variables, whatever holds the scope.
    pub(super) fn clear(&self) {
        let variables = self.variables.take();
        drop(variables);
    }
}
