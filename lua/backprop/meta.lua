---@meta backprop

-- The public interface, for the Lua language server; never loaded. `make doc` makes the reference from it and from the
-- rows of the operations. A paragraph that begins with "Raises" tells the errors; every function raises at the caller's
-- own line, naming itself, for an argument of a wrong kind, count or shape. spec/gate_spec.lua compares this file with
-- the module, both ways. Tracked values have the types of plain ones: one function, two readings.

---@alias backprop.dtype "f64"|"f32"
---@alias backprop.value number|backprop.array
---@alias backprop.axis 1|2

---The module: `local bp = require "backprop"`.
---@class backprop
---@field each backprop.lens Every element of a list or map, or every field of a record that is not static; plural.
---@field static backprop.type The type of a field that is a setting, such as a stride: never tracked, kept as it is.
---@field optim backprop.optim The optimisers.
---@field data backprop.data The readers of data files.
---@field include_dir? string The folder of `backprop.h`; nil where it was not installed.
---@field _VERSION string The version of the library.
local bp = {}

---What the optimisers' constructors stand in.
---@class backprop.optim
bp.optim = {}

---What the readers of data files stand in.
---@class backprop.data
bp.data = {}

-- Arrays ---------------------------------------------------------------------------------------------------------------

---A vector from a list of numbers. Of tracked numbers it is tracked.
---Raises for an element that is no number.
---@param list number[] n numbers
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.vector # of n elements
function bp.vector(list, dtype) end

---A matrix from a list of rows, which are lists of numbers or vectors. Of tracked ones it is tracked.
---Raises for rows that differ in length and for an element that is no number.
---@param list (number[]|backprop.vector)[] r rows of c elements
---@param dtype? backprop.dtype "f64" if absent; vectors as rows keep theirs
---@return backprop.matrix # r x c
function bp.matrix(list, dtype) end

---An array of zeros: `bp.zeros(n)` is a vector, `bp.zeros(n, m)` a matrix; a dtype may follow.
---Raises for a size that is no integer from 0 to 2^31 - 1, or a product of sizes beyond that.
---@param n integer elements, or rows
---@param m? integer|backprop.dtype columns, or the dtype of a vector
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.array # a vector of n elements or a matrix n x m
function bp.zeros(n, m, dtype) end

---An array of ones; see `bp.zeros`.
---@param n integer elements, or rows
---@param m? integer|backprop.dtype columns, or the dtype of a vector
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.array # a vector of n elements or a matrix n x m
function bp.ones(n, m, dtype) end

---An array whose elements are all `value`; see `bp.zeros`. Of a tracked number: `bp.konst`.
---@param value number
---@param n integer elements, or rows
---@param m? integer|backprop.dtype columns, or the dtype of a vector
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.array # a vector of n elements or a matrix n x m
function bp.full(value, n, m, dtype) end

---The identity matrix.
---@param n integer
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.matrix # n x n
function bp.eye(n, dtype) end

---Numbers from a to b, both included, at equal distances; of n = 1 it is a alone.
---@param a number
---@param b number
---@param n integer
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.vector # of n elements
function bp.linspace(a, b, n, dtype) end

---A generator of random numbers, the same for a seed on every machine.
---@param seed integer
---@return backprop.generator
function bp.rng(seed) end

---In place y = y + a x, over arrays or whole structures of one form. A number is changed in the table that holds it.
---Raises for structures, shapes or dtypes that differ, naming the path; nothing has been changed then.
---@param a number
---@param x any a structure like y
---@param y any an array, or a structure of arrays and numbers
function bp.axpy(a, x, y) end

---Gives back the memory of every array of a structure now. A later use of one of them raises.
---Raises for tracked values.
---@param x any
function bp.release(x) end

---What something is: "number", "vector", "matrix", "instance", "record", or else what Lua's `type` says; the same for
---plain and tracked. "released" after `bp.release`, "stale" for a tracked value whose call has ended.
---@param x any
---@return string
function bp.kind(x) end

---An array: a vector or a matrix, plain or tracked. `x[i]` is element i of a vector and row i of a matrix, as a vector
---that shares memory; `x[#x + 1]` is nil and any other position out of range raises. `v[i] = s` changes a vector.
---`#x` counts elements or rows. Operators go element by element; a number broadcasts, and a vector of c elements over
---the rows of an r x c matrix. `x == y` compares shape and values. f64 and f32 do not mix.
---@class backprop.array
---@operator add(backprop.value): backprop.array
---@operator sub(backprop.value): backprop.array
---@operator mul(backprop.value): backprop.array
---@operator div(backprop.value): backprop.array
---@operator pow(backprop.value): backprop.array
---@operator unm: backprop.array
---@operator len: integer
local array = {}

---@class backprop.vector : backprop.array
---@field [integer] number

---@class backprop.matrix : backprop.array
---@field [integer] backprop.vector

---The sizes.
---@return integer # elements of a vector, rows of a matrix
---@return integer? # columns of a matrix
function array:shape() end

---The type of the elements.
---@return backprop.dtype
function array:dtype() end

---One element.
---Raises for a position out of range.
---@param i integer position, or row
---@param j? integer column, of a matrix
---@return number
function array:get(i, j) end

---Changes one element in place: `v:set(i, s)`, `m:set(i, j, s)`.
---Raises for a position out of range, a tracked array and one that is read-only.
---@param i integer position, or row
---@param j integer|number column of a matrix; of a vector the element
---@param s? number the element, of a matrix
function array:set(i, j, s) end

---The elements as a Lua table, of tracked numbers where the array is tracked.
---@return number[]|number[][] # a list, of lists for a matrix
function array:totable() end

---Copies y into this array, in place.
---Raises for another shape or dtype, a tracked array and one that is read-only.
---@param y backprop.array of this shape and dtype
---@return backprop.array # this array
function array:copy(y) end

---Sets every element, in place.
---Raises for a tracked array and one that is read-only.
---@param v number
---@return backprop.array # this array
function array:fill(v) end

---@class backprop.generator
local generator = {}

---Numbers from a to b, b excluded, evenly distributed. Without sizes one number, else an array as of `bp.zeros`.
---@param a? number 0 if absent
---@param b? number 1 if absent
---@param n? integer elements, or rows
---@param m? integer|backprop.dtype columns, or the dtype of a vector
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.value
function generator:uniform(a, b, n, m, dtype) end

---Normally distributed numbers. Without sizes one number, else an array as of `bp.zeros`.
---Raises for a negative standard deviation.
---@param mean? number 0 if absent
---@param sd? number standard deviation, 1 if absent
---@param n? integer elements, or rows
---@param m? integer|backprop.dtype columns, or the dtype of a vector
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.value
function generator:normal(mean, sd, n, m, dtype) end

---1 with probability p, else 0. Without sizes one number, else an array as of `bp.zeros`.
---Raises for a probability that is not from 0 to 1.
---@param p number
---@param n? integer elements, or rows
---@param m? integer|backprop.dtype columns, or the dtype of a vector
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.value
function generator:bernoulli(p, n, m, dtype) end

---The numbers 1 to n in random order (R. Fisher, F. Yates; R. Durstenfeld, 1964).
---@param n integer
---@return backprop.vector # of n elements
function generator:permutation(n) end

-- Differentiation ------------------------------------------------------------------------------------------------------

---`f(...)` on plain values: nothing is recorded.
---@param f function
---@param ... any
---@return any ... # what f returns
function bp.eval(f, ...) end

---A function with f's arguments that returns the gradient of its first result with respect to its first argument: of
---the argument's structure, with plain numbers and arrays for leaves. A result that is no single number is seeded with
---ones in every element. What f does not depend on has exact zeros.
---
---Options: `wrt`, a list of argument numbers to differentiate instead, one gradient each; `into`, a structure (one for
---each of `wrt`) whose arrays receive the gradient instead of new ones; `check_finite`, true to stop at the first
---operation that makes a NaN or inf in this call, false not to.
---
---Raises, when it is called, for an argument without a number or array, for a structure that contains itself, and for a
---first result without a number or array. A gradient inside a gradient of tracked values is not supported and raises.
---@param f function
---@param options? {wrt?: integer[], into?: any, check_finite?: boolean}
---@return function # (...) -> gradient, ...
function bp.grad(f, options) end

---The same as `bp.grad`, returning the value, the gradients, then f's further results as plain values.
---@param f function
---@param options? {wrt?: integer[], into?: any, check_finite?: boolean}
---@return function # (...) -> value, gradient, ..., further results
function bp.value_and_grad(f, options) end

---Value and pullback of f at the arguments, all of which are tracked. The tape lives until the pullback is closed or
---collected.
---Raises for a first result without a number or array.
---@param f function
---@param ... any
---@return any # the value, plain
---@return backprop.pullback
---@return any ... # f's further results, plain
function bp.vjp(f, ...) end

---The pullback of `bp.vjp`: `pullback(cotangent)` returns one gradient for each argument, any number of times. Without a
---cotangent it takes ones; what a cotangent's tables leave out is zero. It can be a to-be-closed variable.
---@class backprop.pullback
---@overload fun(cotangent?: any): any
local pullback = {}

---Gives the tape back. A later call of the pullback raises; closing it again does nothing.
function pullback:close() end

---x untracked, so that no gradient flows through it.
---@param x any
---@return any # the same structure with plain values, which share storage and are read-only
function bp.constant(x) end

---The plain value of anything, for printing and deciding. It stays valid after the call.
---@param x any
---@return any # the same structure with plain values, which share storage and are read-only
function bp.value(x) end

---Counters since the last reset: `nodes` (operations recorded), `additions` (of gradients), `zero_fills`,
---`allocations` (of buffers); and now: `bytes_live` (in arrays), `bytes_pooled` (kept for reuse).
---@param reset? boolean true sets the counters to 0 after reading them
---@return {nodes: integer, additions: integer, zero_fills: integer, allocations: integer, bytes_live: integer, bytes_pooled: integer}
function bp.stats(reset) end

-- Structures -----------------------------------------------------------------------------------------------------------

---A record type: `bp.record("Layer", {"w", "matrix"}, {"b", "vector"})`. A field is a name or {name, Type}, where Type
---is a record type, "number", "vector", "matrix", `bp.list(Type)` or `bp.static`; a tracked value of that kind
---satisfies it. Functions assigned to the type are methods of its records.
---Raises for a field declared twice and for a Type that is none.
---@param name string
---@param ... string|table fields, in the order in which leaves come
---@return backprop.record_type
function bp.record(name, ...) end

---The type of a list whose elements are all of one type.
---@param Type backprop.type
---@return backprop.type
function bp.list(Type) end

---A type of a field: a record type, `bp.list(Type)`, `bp.static`, or one of the words.
---@alias backprop.type backprop.record_type|"number"|"vector"|"matrix"|userdata

---A record type: `T{ w = ..., b = ... }` makes a record. Records have `+ - * /` and unary minus, leaf by leaf, with a
---record of the same type or a number.
---Raises, when it is called, for a field that is missing, unknown or not of its type, naming the path.
---@class backprop.record_type
---@field lens table<string, backprop.lens> The lens of each field.
---@field is fun(x: any): boolean Whether x is a record of this type.
---@overload fun(fields: table): table

---A structure like x with f(leaf, leaf of the 2nd structure, ...) for every leaf.
---Raises for structures that differ, naming the path.
---@param f function
---@param x any
---@param ... any structures of the same form
---@return any
function bp.map(f, x, ...) end

---The list of all leaves, in order: declared order in records, 1..n in lists, then the other keys sorted.
---@param x any
---@return any[]
function bp.leaves(x) end

---The paths of all leaves in the same order, such as "layers[2].w".
---@param x any
---@return string[]
function bp.paths(x) end

---The structure of x with zeros for leaves, plain.
---@param x any
---@return any
function bp.zero(x) end

---The structure of x with ones for leaves, plain.
---@param x any
---@return any
function bp.one(x) end

---The sum of two structures, leaf by leaf; of two numbers or arrays their sum.
---Raises for structures, shapes or dtypes that differ, naming the path.
---@param x any
---@param y any a structure like x
---@return any
function bp.add(x, y) end

---Makes objects with this metatable leaves that can carry a gradient. `zero(x)`, `one(x)` and `add(x, y)` are needed;
---`scale(x, a)` to be stepped by an optimiser or subtracted, `dot(x, y)` to be checked.
---Raises for a function that is missing or unknown.
---@param metatable table
---@param class {zero: function, one: function, add: function, scale?: function, dot?: function}
---@return table # the metatable
function bp.instance(metatable, class) end

-- Lenses ---------------------------------------------------------------------------------------------------------------

---A lens is a part of a structure as a value: `T.lens.field`, or made by the functions below. `a .. b` composes; with
---typed fields `Net.lens.hidden.w` is short for `Net.lens.hidden .. Layer.lens.w`.
---@class backprop.lens
---@field [string] backprop.lens
---@operator concat(backprop.lens): backprop.lens

---The part of x.
---Raises where it is missing, where x is not what the lens is of, and for a plural lens.
---@param x any
---@param lens backprop.lens
---@return any
function bp.view(x, lens) end

---A copy of x, of the path to the part only, with v for the part; x itself where a partial lens finds nothing.
---Raises for a v that the field's type or the part's shape does not allow.
---@param x any
---@param lens backprop.lens
---@param v any
---@return any
function bp.set(x, lens, v) end

---A copy of x with f(part) for the part, or for each of many.
---@param x any
---@param lens backprop.lens
---@param f function
---@return any
function bp.over(x, lens, f) end

---The first part of x, or nil where there is none.
---@param x any
---@param lens backprop.lens
---@return any?
function bp.preview(x, lens) end

---The list of all parts of x.
---@param x any
---@param lens backprop.lens
---@return any[]
function bp.collect(x, lens) end

---A lens of your own: get(x) gives the part, or nil where there is none; set(x, part) a changed copy of x.
---@param get function
---@param set function
---@return backprop.lens
function bp.lens(get, set) end

---Several parts as one list, in the order of the lenses.
---@param ... backprop.lens
---@return backprop.lens
function bp.fields(...) end

---The element of a list or the value in a map, which may be missing.
---@param key integer|string
---@return backprop.lens
function bp.at(key) end

---The elements for which pred holds; plural.
---@param pred function
---@return backprop.lens
function bp.filtered(pred) end

---Element i of a vector, or i, j of a matrix: a number.
---@param i integer
---@param j? integer
---@return backprop.lens
function bp.element_at(i, j) end

---Row i of a matrix: a vector.
---@param i integer
---@return backprop.lens
function bp.row_at(i) end

---Column j of a matrix: a vector.
---@param j integer
---@return backprop.lens
function bp.column_at(j) end

---Elements from..to of a vector, or these rows of a matrix, both included.
---@param from integer
---@param to integer
---@return backprop.lens
function bp.range(from, to) end

-- Operations of your own -----------------------------------------------------------------------------------------------

---An operation with a hand-written gradient. forward(...) gets plain values and returns its result, a number, an array
---or a structure of them, and its pullback. pullback(cotangent, needs) returns one gradient for each argument, nil for
---zero; `needs[i]` is false where argument i takes none. The cotangent is read-only and dead after the call.
---
---Raises, when a gradient is taken, for a pullback that returns another count, structure or shape, naming the operation
---and the path.
---@param definition function|{name?: string, forward: function} forward, or a table that also names it for messages
---@return function
function bp.op(definition) end

---f without a gradient: it raises if a cotangent reaches its result.
---@param f function
---@return function
function bp.nograd(f) end

---A re-arrangement of leaves as an operation: `to` makes the result of the arguments, `from` the arguments of it.
---Raises, when it is called, if `to` changes a leaf instead of moving it.
---@param to function
---@param from function
---@return function
function bp.iso(to, from) end

---All operations of the core: a list of rows with `name`, `signature`, `arity` ("list" of those that take a list),
---`doc`, `formula`, `samples` (a list of argument lists), `source` and `differentiable`.
---@return table[]
function bp.ops() end

---Compares the gradient of f at the arguments with central finite differences (extrapolated, L. Richardson, 1911).
---`bp.check{f =, args =, tol = 1e-6, seed = 1}` sets the tolerance, relative or below 1 absolute, for f32 ten thousand
---times as much, and the seed of weights and directions.
---Raises on a mismatch, naming the worst component by its path.
---@param f function|{f: function, args: any[], tol?: number, seed?: integer}
---@param ... any
---@return {checked: integer, skipped: integer} # how many directions agree, and how many a kink forbids to compare
function bp.check(f, ...) end

-- Training -------------------------------------------------------------------------------------------------------------

---An optimiser. `opt.lr` and its other settings may be assigned; `opt.steps` counts.
---@class backprop.optimiser
---@field lr number The learning rate.
---@field steps integer Steps taken.
local optimiser = {}

---Changes params in place, leaf by leaf; windows of the same elements are one parameter.
---Raises where the gradients are not structured or shaped like the parameters, naming the path; nothing has been
---changed then.
---@param params any arrays and tables of arrays and numbers
---@param grads any of the same structure
function optimiser:step(params, grads) end

---Gradient and update as one. For gradient descent without momentum the gradients of weights are never multiplied out.
---Raises what f raises; no parameter has changed then.
---@param f function (params, ...) -> loss
---@param params any arrays and tables of arrays and numbers
---@param ... any
---@return any # the loss, plain
function optimiser:minimize(f, params, ...) end

---Gradient descent: v = momentum v + g, x = x - lr v (B. Polyak, 1964), or Nesterov's form of it (I. Sutskever and
---others, 2013). Settings: `lr` 0.01, `momentum` 0, `nesterov` false, `weight_decay` 0, which adds its multiple of the
---parameter to the gradient.
---Raises for an unknown setting, one of a wrong type, and a negative or infinite number.
---@param options? {lr?: number, momentum?: number, nesterov?: boolean, weight_decay?: number}
---@return backprop.optimiser
function bp.optim.sgd(options) end

---Adam (D. Kingma, J. Ba, 2015). Settings: `lr` 0.001, `beta1` 0.9, `beta2` 0.999, `eps` 1e-8, `weight_decay` 0, which
---adds its multiple of the parameter to the gradient.
---@param options? {lr?: number, beta1?: number, beta2?: number, eps?: number, weight_decay?: number}
---@return backprop.optimiser
function bp.optim.adam(options) end

---AdamW (I. Loshchilov, F. Hutter, 2019): as `bp.optim.adam`, with `weight_decay` 0.01 taken from the parameter directly.
---@param options? {lr?: number, beta1?: number, beta2?: number, eps?: number, weight_decay?: number}
---@return backprop.optimiser
function bp.optim.adamw(options) end

---RMSProp (T. Tieleman, G. Hinton, 2012). Settings: `lr` 0.01, `alpha` 0.99, `eps` 1e-8, `weight_decay` 0.
---@param options? {lr?: number, alpha?: number, eps?: number, weight_decay?: number}
---@return backprop.optimiser
function bp.optim.rmsprop(options) end

---AdaGrad (J. Duchi and others, 2011). Settings: `lr` 0.01, `eps` 1e-10, `weight_decay` 0.
---@param options? {lr?: number, eps?: number, weight_decay?: number}
---@return backprop.optimiser
function bp.optim.adagrad(options) end

---Reads a file of comma-separated numbers, plain or gzip, one row a line. Options: `header` (by default the first row is
---one if none of its fields is a number), `separator` (one character, by default a comma) and `dtype`.
---Raises for a file that cannot be read or is empty, a field that is no number and a row of another length: the file and
---the line are named.
---@param path string
---@param options? {header?: boolean, separator?: string, dtype?: backprop.dtype}
---@return backprop.matrix # a row for each line
---@return string[]? # the names of the columns, if there is a header
function bp.data.csv(path, options) end

---Reads an idx file, the format of MNIST, plain or gzip (Y. LeCun, C. Cortes, C. Burges). Values are kept as they are: 0
---to 255 for pixels. Option: `dtype`.
---Raises for a file that cannot be read, has a wrong magic number or another length than its sizes ask for: the file and
---the byte, counted from 0, are named.
---@param path string
---@param options? {dtype?: backprop.dtype}
---@return backprop.array # a vector for rank 1; else a matrix: the first size is its rows, the others multiply to columns
---@return integer[] # the sizes as they stand in the file
function bp.data.idx(path, options) end

-- Tools ----------------------------------------------------------------------------------------------------------------

---Sets the number of threads of BLAS, for the whole process.
---Raises for anything but an integer from 1 to 1024.
---@param n integer
function bp.set_threads(n) end

---Runs value and gradient of f(...) with respect to its first argument; prints and returns a list of rows, one for each
---operation and line: `op`, `line`, `calls`, `forward` and `backward` (seconds), `bytes` (of results), `share` (of the
---total, 0 to 1) and `hint`, where a fused operation does the same at once. `total` is in seconds. Its `tostring` is
---the table.
---@param f function
---@param ... any
---@return table
function bp.profile(f, ...) end

---Stops, for every function from now on, at the first operation that makes a NaN or inf, forward or backward, with an
---error that names it and the line that called it; false ends that. `bp.grad` has an option for its calls only.
---@param on boolean
function bp.check_finite(on) end

