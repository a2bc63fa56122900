---@meta backprop

-- The public interface, for the Lua language server; never loaded. `make doc` makes the reference from it and from the
-- rows of the operations. A paragraph that begins with "Raises" tells the errors; every function raises at the caller's
-- own line, naming itself, for an argument of a wrong kind, count or shape. spec/gate_spec.lua compares this file with
-- the module, both ways. Tracked values have the types of plain ones: one function, two readings. Only `==` between a
-- tracked number and a plain one is always false in Lua: `bp.value(x) == 2` asks for the value.

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

---@class backprop.optim
bp.optim = {}

---@class backprop.data
bp.data = {}

-- Arrays --------------------------------------------------------------------------------------------------------------

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
---@param b? number 1 if both are absent
---@param n? integer elements, or rows
---@param m? integer|backprop.dtype columns, or the dtype of a vector
---@param dtype? backprop.dtype "f64" if absent
---@return backprop.value
function generator:uniform(a, b, n, m, dtype) end

---Normally distributed numbers. Without sizes one number, else an array as of `bp.zeros`.
---Raises for a negative standard deviation.
---@param mean? number 0 if absent
---@param sd? number standard deviation; 1 if both are absent
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

---The rows of a matrix as a list of vectors that share its memory.
---@param m backprop.matrix r x c
---@return backprop.vector[] # r vectors of c elements
function bp.rows(m) end

-- Differentiation -----------------------------------------------------------------------------------------------------

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
---Raises, when it is called, for an argument without a number or array, for a structure that contains itself, for a first
---result without a number or array, and where a gradient would go over an array that an operation still reads. A gradient
---inside a gradient of tracked values is not supported and raises.
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

---The pullback of `bp.vjp`: `pullback(cotangent)` returns one gradient for each argument, any number of times. Without
---a cotangent it takes ones; what a cotangent's tables leave out is zero. It can be a to-be-closed variable.
---@class backprop.pullback
---@overload fun(cotangent?: any): any
local pullback = {}

---Gives the tape back. A later call of the pullback raises; closing it again does nothing.
function pullback:close() end

---x untracked, so that no gradient flows through it.
---@param x any
---@return any # the same structure with plain values, which share storage; those of tracked arrays are read-only
function bp.constant(x) end

---The plain value of anything, for printing and deciding. It stays valid after the call.
---@param x any
---@return any # the same structure with plain values, which share storage and are read-only
function bp.value(x) end

---Counters since the last reset: `nodes` (operations recorded), `additions` (of gradients), `zero_fills`,
---`allocations` (of buffers); and now: `bytes_live` (in arrays), `bytes_pooled` (kept for reuse).
---@param reset? boolean true sets the counters to 0 after reading them
---@return table<string, integer>
function bp.stats(reset) end

-- Structures ----------------------------------------------------------------------------------------------------------

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
---@alias backprop.type backprop.record_type|"number"|"vector"|"matrix"|table

---A record type: `T{ w = ..., b = ... }` makes a record. Records have `+ - * /` and unary minus, leaf by leaf, with a
---record of the same type or a number.
---Raises, when it is called, for a field that is missing, unknown or not of its type, naming the path.
---@class backprop.record_type
---@field lens table<string, backprop.lens> The lens of each field.
---@field is fun(x: any): boolean Whether x is a record of this type.
---@overload fun(fields: table): table
local record_type = {}

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

-- Lenses --------------------------------------------------------------------------------------------------------------

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

-- Operations of your own ----------------------------------------------------------------------------------------------

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
---Raises on a mismatch, naming the worst component by its path, where nothing could be compared (at a kink it is seen
---that the gradient lies between the slopes to the two sides), and where f is not the same in every call.
---@param f function|{f: function, args: any[], tol?: number, seed?: integer}
---@param ... any
---@return {checked: integer, skipped: integer} # how many directions agree, and how many a kink forbids to compare
function bp.check(f, ...) end

-- Training ------------------------------------------------------------------------------------------------------------

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

---AdamW (I. Loshchilov, F. Hutter, 2019): as `bp.optim.adam`, with `weight_decay` 0.01 taken from the parameter
---directly.
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

---Reads a file of comma-separated numbers, plain or gzip, one row a line. Options: `header` (by default the first row
---is one if none of its fields is a number), `separator` (one character, by default a comma) and `dtype`.
---Raises for a file that cannot be read or is empty, a field that is no number and a row of another length: the file
---and the line are named.
---@param path string
---@param options? {header?: boolean, separator?: string, dtype?: backprop.dtype}
---@return backprop.matrix # a row for each line
---@return string[]? # the names of the columns, if there is a header
function bp.data.csv(path, options) end

---Reads an idx file, the format of MNIST, plain or gzip (Y. LeCun, C. Cortes, C. Burges). Values are kept as they are:
---0 to 255 for pixels. Option: `dtype`.
---Raises for a file that cannot be read, has a wrong magic number or another length than its sizes ask for: the file
---and the byte, counted from 0, are named.
---@param path string
---@param options? {dtype?: backprop.dtype}
---@return backprop.array # a vector for rank 1, else a matrix: its columns are the product of all sizes but the first
---@return integer[] # the sizes as they stand in the file
function bp.data.idx(path, options) end

-- Tools ---------------------------------------------------------------------------------------------------------------

---Sets the number of threads of BLAS, for the whole process.
---Raises for anything but an integer from 1 to 1024.
---@param n integer
function bp.set_threads(n) end

---Runs value and gradient of f(...) with respect to its first argument; prints and returns a list of rows, one for each
---operation and line: `op`, `line`, `calls`, `forward` and `backward` (seconds), `bytes` (of results), `share` (of the
---total, 0 to 1) and `hint`, where a fused operation does the same at once. The list's own `forward`, `backward`,
---`total` (seconds) and `bytes` are the sums; its `note` says where OpenBLAS runs kernels for a much older processor, else
---it is nil. Its `tostring` is the table.
---@param f function
---@param ... any
---@return table
function bp.profile(f, ...) end

---Stops, for every function from now on, at the first operation that makes a NaN or inf, forward or backward, with an
---error that names it and the line that called it; false ends that. `bp.grad` has an option for its calls only.
---@param on boolean
function bp.check_finite(on) end

-- Operations, written by `make annotations` from their rows -----------------------------------------------------------

---The difference, element by element.
---Formula: `z = x - y; dx = dz, dy = -dz`
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.sub(x, y) end

---The product, element by element.
---Formula: `z = x y; dx = dz y, dy = dz x`
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.mul(x, y) end

---The quotient, element by element.
---Formula: `z = x / y; dx = dz / y, dy = -dz z / y`
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.div(x, y) end

---x to the power of y, element by element. A power of 0 has slope 0; 0 to a power of at least 0 has slope 0 in the
---exponent.
---Formula: `z = x^y; dx = dz y x^(y - 1), dy = dz z log x`
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.pow(x, y) end

---The smaller one, element by element; NaN if either is. A tie halves the cotangent.
---Formula: `z = min(x, y); dx = dz [x < y], dy = dz [y < x]`
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.minimum(x, y) end

---The larger one, element by element; NaN if either is. A tie halves the cotangent.
---Formula: `z = max(x, y); dx = dz [x > y], dy = dz [y > x]`
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.maximum(x, y) end

---1 where x < y, else 0; without a gradient.
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.less(x, y) end

---1 where x <= y, else 0; without a gradient.
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.less_equal(x, y) end

---1 where x > y, else 0; without a gradient.
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.greater(x, y) end

---1 where x >= y, else 0; without a gradient.
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.greater_equal(x, y) end

---1 where x equals y, else 0; without a gradient.
---@param x backprop.value
---@param y backprop.value
---@return backprop.value
function bp.equal(x, y) end

---a where the condition is not 0, else b, element by element. What is not chosen gets a cotangent of exactly 0, also
---where it is inf or NaN.
---Formula: `y = c ? a : b; da = c ? dy : 0, db = c ? 0 : dy`
---@param condition backprop.value
---@param a backprop.value
---@param b backprop.value
---@return backprop.value
function bp.where(condition, a, b) end

---The negative.
---Formula: `y = -x; dx = -dy`
---@generic T: backprop.value
---@param x T
---@return T
function bp.neg(x) end

---e to the power of x.
---Formula: `y = e^x; dx = dy y`
---@generic T: backprop.value
---@param x T
---@return T
function bp.exp(x) end

---The natural logarithm; -inf at 0, NaN below.
---Formula: `y = log x; dx = dy / x`
---@generic T: backprop.value
---@param x T
---@return T
function bp.log(x) end

---log(1 + x), exact for small x.
---Formula: `y = log(1 + x); dx = dy / (1 + x)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.log1p(x) end

---e^x - 1, exact for small x.
---Formula: `y = e^x - 1; dx = dy (y + 1)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.expm1(x) end

---The square root. At 0 the slope is inf, but a cotangent of 0 gives 0.
---Formula: `y = sqrt x; dx = dy / (2 y)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.sqrt(x) end

---The square.
---Formula: `y = x^2; dx = 2 dy x`
---@generic T: backprop.value
---@param x T
---@return T
function bp.square(x) end

---The absolute value. At 0 the slope is taken as 0.
---Formula: `y = |x|; dx = dy sign x`
---@generic T: backprop.value
---@param x T
---@return T
function bp.abs(x) end

----1, 0 or 1. The slope is 0.
---Formula: `y = sign x; dx = 0`
---@generic T: backprop.value
---@param x T
---@return T
function bp.sign(x) end

---The sine of x radians.
---Formula: `y = sin x; dx = dy cos x`
---@generic T: backprop.value
---@param x T
---@return T
function bp.sin(x) end

---The cosine of x radians.
---Formula: `y = cos x; dx = -dy sin x`
---@generic T: backprop.value
---@param x T
---@return T
function bp.cos(x) end

---The tangent of x radians.
---Formula: `y = tan x; dx = dy (1 + y^2)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.tan(x) end

---The angle in radians whose sine is x.
---Formula: `y = asin x; dx = dy / sqrt(1 - x^2)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.asin(x) end

---The angle in radians whose cosine is x.
---Formula: `y = acos x; dx = -dy / sqrt(1 - x^2)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.acos(x) end

---The angle in radians whose tangent is x.
---Formula: `y = atan x; dx = dy / (1 + x^2)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.atan(x) end

---The hyperbolic sine.
---Formula: `y = sinh x; dx = dy cosh x`
---@generic T: backprop.value
---@param x T
---@return T
function bp.sinh(x) end

---The hyperbolic cosine.
---Formula: `y = cosh x; dx = dy sinh x`
---@generic T: backprop.value
---@param x T
---@return T
function bp.cosh(x) end

---The hyperbolic tangent.
---Formula: `y = tanh x; dx = dy (1 - y^2)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.tanh(x) end

---The logistic function.
---Formula: `y = 1 / (1 + e^-x); dx = dy y (1 - y)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.sigmoid(x) end

---log(1 + e^x), without overflow.
---Formula: `y = log(1 + e^x); dx = dy / (1 + e^-x)`
---@generic T: backprop.value
---@param x T
---@return T
function bp.softplus(x) end

---x where positive, else 0. At 0 the slope is taken as 0.
---Formula: `y = max(x, 0); dx = dy [x > 0]`
---@generic T: backprop.value
---@param x T
---@return T
function bp.relu(x) end

---x where positive, else slope x. At 0 the slope is the one of the negative side.
---Formula: `y = x > 0 ? x : slope x; dx = dy (x > 0 ? 1 : slope)`
---@generic T: backprop.value
---@param x T
---@param slope? number 0.01 if absent
---@return T
function bp.leaky_relu(x, slope) end

---x where positive, else alpha (e^x - 1) (D.-A. Clevert and others, 2015).
---Formula: `y = x > 0 ? x : alpha (e^x - 1); dx = dy (x > 0 ? 1 : y + alpha)`
---@generic T: backprop.value
---@param x T
---@param alpha? number 1 if absent
---@return T
function bp.elu(x, alpha) end

---x times the normal distribution function, exactly (D. Hendrycks, K. Gimpel, 2016).
---Formula: `y = x P(x); dx = dy (P(x) + x p(x)), P and p of the standard normal distribution`
---@generic T: backprop.value
---@param x T
---@return T
function bp.gelu(x) end

---x times its logistic function.
---Formula: `y = x s(x); dx = dy s(x) (1 + x (1 - s(x)))`
---@generic T: backprop.value
---@param x T
---@return T
function bp.silu(x) end

---1 / x.
---Formula: `y = 1 / x; dx = -dy y^2`
---@generic T: backprop.value
---@param x T
---@return T
function bp.reciprocal(x) end

---x held between lo and hi. The cotangent passes at the bounds, and is 0 beyond them.
---Formula: `y = min(max(x, lo), hi); dx = dy [lo <= x <= hi]`
---@generic T: backprop.value
---@param x T
---@param lo number
---@param hi number
---@return T
function bp.clamp(x, lo, hi) end

---The sum; 0 of no elements.
---Formula: `y = sum x; dx = dy`
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return number|backprop.vector
function bp.sum(x, axis) end

---The arithmetic mean of n elements.
---Formula: `y = sum x / n; dx = dy / n`
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return number|backprop.vector
function bp.mean(x, axis) end

---The largest element, NaN if there is one. Elements that tie share the cotangent evenly.
---Formula: `y = max x; dx = dy [x = y] / ties`
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return number|backprop.vector
function bp.max(x, axis) end

---The smallest element, NaN if there is one. Elements that tie share the cotangent evenly.
---Formula: `y = min x; dx = dy [x = y] / ties`
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return number|backprop.vector
function bp.min(x, axis) end

---The product; 1 of no elements. Exact also where elements are 0.
---Formula: `y = prod x; dx_i = dy prod_{j != i} x_j`
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return number|backprop.vector
function bp.prod(x, axis) end

---log(sum(e^x)), without overflow; -inf of no elements.
---Formula: `y = log sum e^x; dx = dy e^(x - y)`
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return number|backprop.vector
function bp.logsumexp(x, axis) end

---The Euclidean norm of a vector, the Frobenius norm of a matrix. At 0 the gradient is taken as 0.
---Formula: `y = sqrt(sum x^2); dx = dy x / y`
---@param x backprop.value
---@return number
function bp.norm(x) end

---The position of the first largest element, plain: an integer for a vector, row and column for a matrix, with an axis
---a vector of positions.
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return integer|backprop.vector
function bp.argmax(x, axis) end

---The position of the first smallest element, plain: an integer for a vector, row and column for a matrix, with an
---axis a vector of positions.
---@param x backprop.value
---@param axis? backprop.axis 1 runs down the rows, 2 along the columns; without it over all elements
---@return integer|backprop.vector
function bp.argmin(x, axis) end

---The inner product of two vectors of n elements, a number.
---Formula: `y = sum u v; du = dy v, dv = dy u`
---@param u backprop.value
---@param v backprop.value
---@return number
function bp.dot(u, v) end

---The outer product of vectors of m and n elements, an m x n matrix.
---Formula: `Y = u v'; du = dY v, dv = dY' u`
---@param u backprop.value
---@param v backprop.value
---@return backprop.matrix
function bp.outer(u, v) end

---The matrix product: m x k by k x n gives m x n; a matrix by a vector, and a vector by a matrix, give a vector.
---Formula: `Y = A B; dA = dY B', dB = A' dY`
---@param a backprop.value
---@param b backprop.value
---@return backprop.array
function bp.matmul(a, b) end

---A dense layer: w is out x in, b has out elements. w x + b for a vector x of in elements, x w' + b for a batch of
---rows. A fourth argument names an element-wise operation to apply to the result.
---Formula: `y = f(w x + b); dz = dy f', dx = w' dz, dw = dz x', db = dz`
---@param x backprop.value
---@param w backprop.value
---@param b backprop.value
---@param activation? string the name of an element-wise operation
---@return backprop.array
function bp.linear(x, w, b, activation) end

---The transpose of an m x n matrix, n x m: a copy, made only where it is needed. matmul and linear read x itself.
---Formula: `Y = X'; dX = dY'`
---@param x backprop.value
---@return backprop.matrix
function bp.transpose(x) end

---The diagonal of a matrix, or the square matrix with a vector as its diagonal.
---Formula: `y_i = X_ii; dX_ii = dy_i`
---@param x backprop.value
---@return backprop.array
function bp.diag(x) end

---The sum of the diagonal of a square matrix.
---Formula: `y = sum X_ii; dX_ii = dy`
---@param x backprop.value
---@return number
function bp.trace(x) end

---A copy with storage of its own.
---Formula: `y = x; dx = dy`
---@generic T: backprop.value
---@param x T
---@return T
function bp.clone(x) end

---The same elements, row by row, as a vector of n or a matrix n x m. Shares memory where they are adjacent.
---Formula: `Y = X; dX = dY`
---@param x backprop.value
---@param n integer from 0
---@param m? integer from 0
---@return backprop.array
function bp.reshape(x, n, m) end

---The elements, row by row, as a vector. Shares memory where they are adjacent.
---Formula: `y = X; dX = dy`
---@param x backprop.value
---@return backprop.vector
function bp.flatten(x) end

---The elements of a vector, or the rows of a matrix, from one position to another, both included. Shares memory. `to`
---may be `from` - 1: no elements.
---Formula: `y = x[from..to]; dx[from..to] = dy`
---@generic T: backprop.value
---@param x T
---@param from integer from 1
---@param to integer from 1
---@return T
function bp.slice(x, from, to) end

---Row i of a matrix as a vector. Shares memory.
---Formula: `y = M_i; dM_i = dy`
---@param m backprop.value
---@param i integer from 1
---@return backprop.vector
function bp.row(m, i) end

---Column j of a matrix as a vector. Shares memory.
---Formula: `y = M_.j; dM_.j = dy`
---@param m backprop.value
---@param j integer from 1
---@return backprop.vector
function bp.column(m, j) end

---Element i of a vector, or i, j of a matrix, as a number.
---Formula: `y = x_i; dx_i = dy`
---@param x backprop.value
---@param i integer from 1
---@param j? integer from 1
---@return number
function bp.element(x, i, j) end

---Vectors end to end; matrices one below the other (axis 1, the default) or side by side (axis 2).
---Formula: `Y = [X1; X2; ..]; dXk = its part of dY`
---@param list backprop.value[]
---@param axis? backprop.axis 1, one below the other, if absent; 2 is side by side
---@return backprop.array
function bp.concat(list, axis) end

---Numbers to a vector, vectors to a matrix whose rows they are.
---Formula: `Y_k = x_k; dx_k = dY_k`
---@param list backprop.value[]
---@param dtype? backprop.dtype
---@return backprop.array
function bp.stack(list, dtype) end

---The elements of a vector, or the rows of a matrix, at the positions of a list or vector; a position may come more
---than once.
---Formula: `y_k = x[i_k]; dx[i] = sum over i_k = i of dy_k`
---@generic T: backprop.value
---@param x T
---@param indices integer|integer[]|backprop.vector from 1
---@return T
function bp.gather(x, indices) end

---A vector of n, or a matrix n x m, whose elements are all the number s.
---Formula: `y_i = s; ds = sum dy`
---@param s backprop.value
---@param n integer from 0
---@param m? integer from 0
---@param dtype? backprop.dtype
---@return backprop.array
function bp.konst(s, n, m, dtype) end

---A copy as "f64" or "f32".
---Formula: `y = x; dx = dy`
---@generic T: backprop.value
---@param x T
---@param dtype backprop.dtype
---@return T
function bp.astype(x, dtype) end

---e^x over its sum, of a vector or of each row of a matrix, without overflow.
---Formula: `y = e^x / sum e^x; dx = y (dy - sum(dy y))`
---@generic T: backprop.value
---@param x T
---@return T
function bp.softmax(x) end

---The logarithm of the softmax of a vector or of each row of a matrix, without overflow.
---Formula: `y = x - log sum e^x; dx = dy - e^y sum dy`
---@generic T: backprop.value
---@param x T
---@return T
function bp.log_softmax(x) end

---The cross entropy of softmax(logits) and a target, a number in nats; for a batch the mean over its rows. The target
---has the logits' shape (a distribution, with any sum), or is class numbers from 1: an integer, a list, or for a batch
---a vector.
---Formula: `y = sum t (log sum e^x - x); dx = dy (sum(t) softmax(x) - t)`
---@param logits backprop.value
---@param target backprop.array|integer|integer[]
---@return number
function bp.softmax_cross_entropy(logits, target) end

---The cross entropy of sigmoid(logits) and a target of the same shape, from 0 to 1, summed to a number in nats; for a
---batch the mean over its rows.
---Formula: `y = sum log(1 + e^x) - t x; dx = dy (sigmoid(x) - t), dt = -dy x`
---@param logits backprop.value
---@param target backprop.value
---@return number
function bp.sigmoid_cross_entropy(logits, target) end

---Operations as methods: `x:exp()` is `bp.exp(x)`.
---@class backprop.array
---@field abs fun(self: backprop.array): backprop.array See `bp.abs`.
---@field acos fun(self: backprop.array): backprop.array See `bp.acos`.
---@field argmax fun(self: backprop.array, axis?: backprop.axis): integer|backprop.vector See `bp.argmax`.
---@field argmin fun(self: backprop.array, axis?: backprop.axis): integer|backprop.vector See `bp.argmin`.
---@field asin fun(self: backprop.array): backprop.array See `bp.asin`.
---@field astype fun(self: backprop.array, dtype: backprop.dtype): backprop.array See `bp.astype`.
---@field atan fun(self: backprop.array): backprop.array See `bp.atan`.
---@field clamp fun(self: backprop.array, lo: number, hi: number): backprop.array See `bp.clamp`.
---@field clone fun(self: backprop.array): backprop.array See `bp.clone`.
---@field column fun(self: backprop.array, j: integer): backprop.vector See `bp.column`.
---@field cos fun(self: backprop.array): backprop.array See `bp.cos`.
---@field cosh fun(self: backprop.array): backprop.array See `bp.cosh`.
---@field diag fun(self: backprop.array): backprop.array See `bp.diag`.
---@field dot fun(self: backprop.array, v: backprop.value): number See `bp.dot`.
---@field element fun(self: backprop.array, i: integer, j?: integer): number See `bp.element`.
---@field elu fun(self: backprop.array, alpha?: number): backprop.array See `bp.elu`.
---@field equal fun(self: backprop.array, y: backprop.value): backprop.value See `bp.equal`.
---@field exp fun(self: backprop.array): backprop.array See `bp.exp`.
---@field expm1 fun(self: backprop.array): backprop.array See `bp.expm1`.
---@field flatten fun(self: backprop.array): backprop.vector See `bp.flatten`.
---@field gather fun(self: backprop.array, indices: integer|integer[]|backprop.vector): backprop.array See `bp.gather`.
---@field gelu fun(self: backprop.array): backprop.array See `bp.gelu`.
---@field greater fun(self: backprop.array, y: backprop.value): backprop.value See `bp.greater`.
---@field greater_equal fun(self: backprop.array, y: backprop.value): backprop.value See `bp.greater_equal`.
---@field leaky_relu fun(self: backprop.array, slope?: number): backprop.array See `bp.leaky_relu`.
---@field less fun(self: backprop.array, y: backprop.value): backprop.value See `bp.less`.
---@field less_equal fun(self: backprop.array, y: backprop.value): backprop.value See `bp.less_equal`.
---@field linear fun(self: backprop.array, w: backprop.value, b: backprop.value, activation?: string): backprop.array See `bp.linear`.
---@field log fun(self: backprop.array): backprop.array See `bp.log`.
---@field log1p fun(self: backprop.array): backprop.array See `bp.log1p`.
---@field log_softmax fun(self: backprop.array): backprop.array See `bp.log_softmax`.
---@field logsumexp fun(self: backprop.array, axis?: backprop.axis): number|backprop.vector See `bp.logsumexp`.
---@field matmul fun(self: backprop.array, b: backprop.value): backprop.array See `bp.matmul`.
---@field max fun(self: backprop.array, axis?: backprop.axis): number|backprop.vector See `bp.max`.
---@field maximum fun(self: backprop.array, y: backprop.value): backprop.value See `bp.maximum`.
---@field mean fun(self: backprop.array, axis?: backprop.axis): number|backprop.vector See `bp.mean`.
---@field min fun(self: backprop.array, axis?: backprop.axis): number|backprop.vector See `bp.min`.
---@field minimum fun(self: backprop.array, y: backprop.value): backprop.value See `bp.minimum`.
---@field neg fun(self: backprop.array): backprop.array See `bp.neg`.
---@field norm fun(self: backprop.array): number See `bp.norm`.
---@field outer fun(self: backprop.array, v: backprop.value): backprop.matrix See `bp.outer`.
---@field pow fun(self: backprop.array, y: backprop.value): backprop.value See `bp.pow`.
---@field prod fun(self: backprop.array, axis?: backprop.axis): number|backprop.vector See `bp.prod`.
---@field reciprocal fun(self: backprop.array): backprop.array See `bp.reciprocal`.
---@field relu fun(self: backprop.array): backprop.array See `bp.relu`.
---@field reshape fun(self: backprop.array, n: integer, m?: integer): backprop.array See `bp.reshape`.
---@field row fun(self: backprop.array, i: integer): backprop.vector See `bp.row`.
---@field rows fun(self: backprop.array): backprop.vector[] See `bp.rows`.
---@field sigmoid fun(self: backprop.array): backprop.array See `bp.sigmoid`.
---@field sigmoid_cross_entropy fun(self: backprop.array, target: backprop.value): number See `bp.sigmoid_cross_entropy`.
---@field sign fun(self: backprop.array): backprop.array See `bp.sign`.
---@field silu fun(self: backprop.array): backprop.array See `bp.silu`.
---@field sin fun(self: backprop.array): backprop.array See `bp.sin`.
---@field sinh fun(self: backprop.array): backprop.array See `bp.sinh`.
---@field slice fun(self: backprop.array, from: integer, to: integer): backprop.array See `bp.slice`.
---@field softmax fun(self: backprop.array): backprop.array See `bp.softmax`.
---@field softmax_cross_entropy fun(self: backprop.array, target: backprop.array|integer|integer[]): number See `bp.softmax_cross_entropy`.
---@field softplus fun(self: backprop.array): backprop.array See `bp.softplus`.
---@field sqrt fun(self: backprop.array): backprop.array See `bp.sqrt`.
---@field square fun(self: backprop.array): backprop.array See `bp.square`.
---@field sum fun(self: backprop.array, axis?: backprop.axis): number|backprop.vector See `bp.sum`.
---@field tan fun(self: backprop.array): backprop.array See `bp.tan`.
---@field tanh fun(self: backprop.array): backprop.array See `bp.tanh`.
---@field trace fun(self: backprop.array): number See `bp.trace`.
---@field transpose fun(self: backprop.array): backprop.matrix See `bp.transpose`.
---@field where fun(self: backprop.array, a: backprop.value, b: backprop.value): backprop.value See `bp.where`.

return bp
