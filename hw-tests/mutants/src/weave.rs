//! Puts changes into a source file, each behind its switch. A switch that is off leaves what the program does as it is.

use std::collections::{HashMap, HashSet};
use std::ops;

use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Bytes of a source file.
pub type Piece = ops::Range<usize>;

/// A change that cargo-mutants would make.
pub struct Change {
    /// What turns it on, counted from 1.
    pub number: u32,
    /// Relative to the tree.
    pub file: String,
    /// As cargo-mutants calls it.
    pub name: String,
    /// The function that it is in.
    pub function: String,
    genre: String,
    replacement: String,
    /// Of a function that returns a type without a name: another expression would be another type.
    is_opaque: bool,
    /// Line and column, from 1.
    at: (usize, usize),
}

impl Change {
    /// Reads what `cargo mutants --list --json` printed; `None` for what has no such form.
    pub fn read(number: u32, value: &Value) -> Option<Change> {
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let start = value.get("span")?.get("start")?;
        let place = |name: &str| Some(start.get(name)?.as_u64()? as usize);
        let function = value.get("function").and_then(|f| f.get("function_name")).and_then(Value::as_str);
        let returns = value.get("function").and_then(|f| f.get("return_type")).and_then(Value::as_str);
        Some(Change {
            number,
            is_opaque: returns.is_some_and(|returns| returns.contains("impl ")),
            file: text("file")?,
            name: text("name")?,
            function: function.unwrap_or_default().to_owned(),
            genre: text("genre")?,
            replacement: text("replacement")?,
            at: (place("line")?, place("column")?),
        })
    }
}

/// A file with its changes.
pub struct Woven {
    /// The new source.
    pub text: String,
    /// Which bytes of it stand there for which change.
    pub regions: Vec<(u32, Piece)>,
    /// What has no form with a switch.
    pub skipped: Vec<u32>,
}

/// Where the parts of the source are that can be changed, by the byte at which cargo-mutants says that the change is.
#[derive(Default)]
struct Places {
    /// First statement of a body: after its brace.
    bodies: HashMap<usize, usize>,
    /// Operator: left, operator, right.
    binaries: HashMap<usize, (Piece, Piece, Piece)>,
    /// Operator: the whole, the operator.
    unaries: HashMap<usize, (Piece, Piece)>,
    /// Arm: the end of its pattern, its guard.
    arms: HashMap<usize, (usize, Option<Piece>)>,
    /// Arms of matches that name every case.
    complete: HashSet<usize>,
    guards: HashMap<usize, Piece>,
    /// Field: its value, with the type, the name and where the other fields come from. Of a field without a value of its own the
    /// name is the value.
    fields: HashMap<usize, (Piece, Piece, Piece, Piece)>,
}

fn range(of: &impl Spanned) -> Piece {
    of.span().byte_range()
}

/// Conditions with a pattern in them hold no operator that can be put in other words.
fn binds(expr: &syn::Expr) -> bool {
    match expr {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(b) => binds(&b.left) || binds(&b.right),
        syn::Expr::Paren(p) => binds(&p.expr),
        _ => false,
    }
}

/// Whether an expression can stand twice: it takes nothing away that the second would need.
fn can_be_twice(expr: &syn::Expr) -> bool {
    match expr {
        syn::Expr::Path(_) => true,
        syn::Expr::Field(f) => can_be_twice(&f.base),
        syn::Expr::Call(c) => c.args.is_empty(),
        syn::Expr::MethodCall(c) => c.args.is_empty() && can_be_twice(&c.receiver),
        _ => false,
    }
}

impl Places {
    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if let (None, Some(first)) = (signature.constness, block.stmts.first()) {
            self.bodies.insert(range(first).start, block.brace_token.span.open().byte_range().end);
        }
    }
}

impl<'ast> Visit<'ast> for Places {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.sig, &item.block);
        if item.sig.constness.is_none() {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.sig, &item.block);
        if item.sig.constness.is_none() {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}

    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        if !binds(&expr.left) && !binds(&expr.right) {
            self.binaries
                .insert(range(&expr.op).start, (range(&expr.left), range(&expr.op), range(&expr.right)));
        }
        visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        if matches!(expr.op, syn::UnOp::Not(_) | syn::UnOp::Neg(_)) {
            self.unaries.insert(range(&expr.op).start, (range(expr), range(&expr.op)));
        }
        visit::visit_expr_unary(self, expr);
    }

    fn visit_expr_match(&mut self, expr: &'ast syn::ExprMatch) {
        // An arm with a guard covers nothing: without one for all the rest, the compiler would miss it.
        let takes_rest = |arm: &syn::Arm| arm.guard.is_none() && matches!(arm.pat, syn::Pat::Wild(_));
        if !expr.arms.iter().any(takes_rest) {
            self.complete.extend(expr.arms.iter().map(|arm| range(arm).start));
        }
        visit::visit_expr_match(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let guard = arm.guard.as_ref().map(|(_, guard)| guard);
        if guard.is_none_or(|guard| !binds(guard)) {
            let guard = guard.map(range);
            if !self.complete.contains(&range(arm).start) {
                self.arms.insert(range(arm).start, (range(&arm.pat).end, guard.clone()));
            }
            if let Some(guard) = guard {
                self.guards.insert(guard.start, guard);
            }
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expr: &'ast syn::ExprStruct) {
        if let Some(rest) = &expr.rest {
            for field in expr.fields.iter().filter(|field| field.colon_token.is_some() || can_be_twice(rest))
            {
                let places = (range(&field.expr), range(&expr.path), range(&field.member), range(rest));
                self.fields.insert(range(field).start, places);
            }
        }
        visit::visit_expr_struct(self, expr);
    }
}

/// Text in the place of a piece of the source. Of those that begin at one byte, what ends a piece comes first, and the longer
/// piece is outside.
struct Edit {
    number: u32,
    at: Piece,
    order: isize,
    text: String,
}

struct Edits {
    edits: Vec<Edit>,
    number: u32,
    /// How many were added before.
    turn: isize,
}

impl Edits {
    fn put(&mut self, at: Piece, order: isize, text: impl Into<String>) {
        self.edits.push(Edit { number: self.number, at, order, text: text.into() });
    }

    /// Of two around the same piece, the first is outside.
    fn wrap(&mut self, piece: &Piece, before: impl Into<String>, after: impl Into<String>) {
        let (outside, turn) = ((piece.len() as isize) << 16, self.turn);
        self.put(piece.start..piece.start, isize::MAX / 2 - outside + turn, before);
        self.put(piece.end..piece.end, isize::MIN / 2 + outside - turn, after);
    }

    /// The change as edits; `None` if it has no form with a switch.
    fn add(&mut self, change: &Change, at: usize, places: &Places, source: &str) -> Option<()> {
        self.number = change.number;
        self.turn += 1;
        let on = format!("crate::mutant({})", change.number);
        let new = &change.replacement;
        match change.genre.as_str() {
            "FnValue" if !change.is_opaque => {
                let body = *places.bodies.get(&at)?;
                self.put(body..body, 0, format!(" if {on} {{ return {new}; }} "));
            }
            "BinaryOperator" => {
                let (left, operator, right) = places.binaries.get(&at)?;
                let whole = left.start..right.end;
                match (&source[operator.clone()], new.as_str()) {
                    ("&&", "||") => {
                        self.wrap(&whole, "({ let l__: bool = ", " } else { l__ } })");
                        self.put(operator.clone(), 0, format!("; if l__ ^ {on} {{ "));
                    }
                    ("||", "&&") => {
                        self.wrap(&whole, "({ let l__: bool = ", " } })");
                        self.put(operator.clone(), 0, format!("; if l__ ^ {on} {{ l__ }} else {{ "));
                    }
                    ("==", "!=") | ("!=", "==") | ("<=", ">") | (">=", "<") => {
                        self.wrap(&whole, format!("({on} ^ ("), "))");
                    }
                    (old @ ("<" | ">"), "<" | ">") => {
                        let after = format!(
                            ")) {{ (l__, r__) => if {on} {{ l__ {new} r__ }} else {{ l__ {old} r__ }} }})"
                        );
                        self.wrap(&whole, "(match (&(", after);
                        self.put(operator.clone(), 0, "), &(");
                    }
                    _ => return None,
                }
            }
            "UnaryOperator" => match places.unaries.get(&at)? {
                (whole, operator) if &source[operator.clone()] == "-" => {
                    self.wrap(whole, "({ let v__ = ", format!("; if {on} {{ v__ }} else {{ -v__ }} }})"));
                    // Behind what is put in front of the whole, which begins there too.
                    self.put(operator.clone(), isize::MAX, "");
                }
                (whole, _) => self.wrap(whole, format!("({on} ^ ("), "))"),
            },
            "MatchArm" => match places.arms.get(&at)? {
                (_, Some(guard)) => self.wrap(guard, format!("(!{on} && ("), "))"),
                (end, None) => self.put(*end..*end, 0, format!(" if !{on}")),
            },
            "MatchArmGuard" => {
                let begin = if new == "true" { format!("({on} || (") } else { format!("(!{on} && (") };
                self.wrap(places.guards.get(&at)?, begin, "))");
            }
            "StructField" => {
                let (value, path, member, rest) = places.fields.get(&at)?;
                let from = match &source[rest.clone()] {
                    "Default::default()" => format!("<{}>::default()", &source[path.clone()]),
                    other => format!("({other})"),
                };
                let name = &source[member.clone()];
                let is_short = member == value;
                let begin = if is_short { format!("{name}: ") } else { String::new() };
                self.wrap(value, format!("{begin}(if {on} {{ {from}.{name} }} else {{ "), " })");
            }
            _ => return None,
        }
        Some(())
    }
}

/// Puts the changes of a file into its source.
///
/// # Errors
/// If the source cannot be read as Rust.
pub fn weave(source: &str, changes: &[&Change]) -> Result<Woven, syn::Error> {
    let mut places = Places::default();
    places.visit_file(&syn::parse_file(source)?);
    let lines: Vec<usize> =
        std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let byte = |(line, column): (usize, usize)| {
        let start = *lines.get(line - 1)?;
        source[start..].char_indices().nth(column - 1).map(|(at, _)| start + at)
    };
    let mut edits = Edits { edits: Vec::new(), number: 0, turn: 0 };
    let mut skipped = Vec::new();
    // An operator falls apart into its operands: what is around the whole has to be outside, and comes first.
    let (operators, rest): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|c| c.genre.ends_with("Operator"));
    for change in rest.into_iter().chain(operators) {
        if byte(change.at).and_then(|at| edits.add(change, at, &places, source)).is_none() {
            skipped.push(change.number);
        }
    }
    let mut edits = edits.edits;
    edits.sort_by_key(|edit| (edit.at.start, edit.order));
    let (mut text, mut from, mut regions) = (String::new(), 0, HashMap::<u32, Piece>::new());
    for edit in &edits {
        text.push_str(&source[from..edit.at.start]);
        let start = text.len();
        text.push_str(&edit.text);
        from = edit.at.end;
        regions.entry(edit.number).or_insert(start..start).end = text.len();
    }
    text.push_str(&source[from..]);
    Ok(Woven { text, regions: regions.into_iter().collect(), skipped })
}
