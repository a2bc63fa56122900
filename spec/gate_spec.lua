-- The gate: whatever is public has an annotation (from which the reference is made), a test and a listed wrong call.
-- Held here: the module, its tables and the methods of everything it makes are compared with lua/backprop/meta.lua,
-- both ways, in names, parameters, what is optional and (of operations) kinds of results; every parameter and result is
-- described; the reference is built without a warning and has every name.
--
-- A function counts as tested where a spec calls it by its public name; what it must do is the business of that spec.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local core = require "backprop.core"
local annotations = require "support.annotations"
local manual = require "support.manual"
local wrong_calls = require "support.wrong_calls"

-- What is public -----------------------------------------------------------------------------------------------------

local rows, row_of = bp.ops(), {}
for _, row in ipairs(rows) do row_of[row.name] = row end

local function is_public(name) return type(name) == "string" and not name:find("^__") end

local function functions_of(t)
  local found = {}
  for name, f in pairs(t) do
    if is_public(name) and type(f) == "function" then found[name] = f end
  end
  return found
end

-- The methods that objects of a metatable have.
local function methods_of(object) return functions_of(debug.getmetatable(object).__index) end

local _, a_pullback = bp.vjp(function(x) return x end, 1)
local a_type = bp.record("T", "x")

-- By the name of the owner in the annotations.
local public = {
  bp = functions_of(bp), ["bp.optim"] = functions_of(bp.optim), ["bp.data"] = functions_of(bp.data),
  array = functions_of(core.methods), generator = methods_of(bp.rng(1)), optimiser = methods_of(bp.optim.sgd{}),
  pullback = methods_of(a_pullback),
}

local function each_function(visit)
  for owner, functions in pairs(public) do
    for name, f in pairs(functions) do visit(owner, name, f) end
  end
end

-- What is annotated ---------------------------------------------------------------------------------------------------

local content = annotations.content()
local items = annotations.parse(content)

local annotated, classes = {}, {}
for owner in pairs(public) do annotated[owner] = {} end
for _, item in ipairs(items) do
  if item.kind == "function" then
    assert(annotated[item.owner], item.owner .. " owns nothing public")[item.name] = item
  else
    classes[item.name] = classes[item.name] or {}
    for _, field in ipairs(item.fields) do classes[item.name][field.name] = field end
  end
end

local function has(owner, name)
  return annotated[owner][name] or owner == "array" and classes.array[name]
end

local function report(list)
  table.sort(list)
  assert(#list == 0, table.concat(list, "\n"))
end

local function full_name(owner, name)
  return (owner:find("^bp") and "%s.%s" or "%s:%s"):format(owner, name)
end

describe("the annotations", function()
  it("leave nothing public out", function()
    local missing = {}
    each_function(function(owner, name)
      if not has(owner, name) then missing[#missing + 1] = full_name(owner, name) .. " has no annotation" end
    end)
    for name, value in pairs(bp) do
      if type(value) ~= "function" and not classes.backprop[name] then missing[#missing + 1] = "bp." .. name end
    end
    for _, name in ipairs{ "is", "lens" } do assert(a_type[name] and classes.record_type[name], name) end
    report(missing)
  end)

  it("invent nothing", function()
    local invented = {}
    for owner, functions in pairs(annotated) do
      for name, item in pairs(functions) do
        if not public[owner][name] then
          invented[#invented + 1] = ("%s:%d: no %s"):format(annotations.path, item.line, full_name(owner, name))
        end
      end
    end
    for name in pairs(classes.array) do
      if not name:find("^%[") and not public.array[name] then invented[#invented + 1] = "array:" .. name end
    end
    for name in pairs(classes.backprop) do
      if bp[name] == nil then invented[#invented + 1] = "bp." .. name end
    end
    for name in pairs(classes.optimiser) do
      if bp.optim.sgd{}[name] == nil then invented[#invented + 1] = "optimiser." .. name end
    end
    for name in pairs(classes.record_type) do
      if a_type[name] == nil then invented[#invented + 1] = "record_type." .. name end
    end
    report(invented)
  end)

  -- Parameters in Lua's eyes: names, without self, without one that only catches a surplus argument.
  local function parameters_of(f, is_method)
    local _, inner = debug.getupvalue(f, 1)
    if debug.getinfo(f, "S").what == "C" and type(inner) == "function" then f = inner end -- core.keep_line
    local info, names = debug.getinfo(f, "Su"), {}
    if info.what == "C" then return nil end
    for i = is_method and 2 or 1, info.nparams do names[#names + 1] = debug.getlocal(f, i) end
    if names[#names] == "surplus" then names[#names] = nil end
    if info.isvararg then names[#names + 1] = "..." end
    return names
  end

  it("have the parameters of the functions: as many as in Lua, those of the signature of an operation", function()
    local wrong = {}
    for owner, functions in pairs(annotated) do
      for name, item in pairs(functions) do
        local names = parameters_of(public[owner][name], item.method)
        local row = owner == "bp" and row_of[name]
        -- Wrappers of operations take the parameters of the row as `...`.
        if names and not row and #names ~= #item.arguments then
          wrong[#wrong + 1] = ("%s(%s) is annotated as (%s)"):format(full_name(owner, name), table.concat(names, ", "),
            table.concat(item.arguments, ", "))
        end
        if #item.params ~= #item.arguments then
          wrong[#wrong + 1] = ("%s: %d of %d parameters are annotated"):format(full_name(owner, name), #item.params,
            #item.arguments)
        end
        for i, param in ipairs(item.params) do
          if param.name ~= item.arguments[i] then
            wrong[#wrong + 1] = ("%s: %s is not %s"):format(full_name(owner, name), item.arguments[i], param.name)
          end
        end
      end
    end
    report(wrong)
  end)

  -- Functions written in C say what they take when they are given too much. Enough of everything for each parameter.
  local fitting = {
    ["bp.zeros"] = { 1, 1, "f32" }, ["bp.ones"] = { 1, 1, "f32" }, ["bp.full"] = { 1, 1, 1, "f32" },
    ["bp.eye"] = { 1, "f32" }, ["bp.linspace"] = { 0, 1, 2, "f32" }, ["bp.rng"] = { 1 }, ["bp.stats"] = { false },
    ["bp.set_threads"] = { 1 }, ["array:shape"] = {}, ["array:dtype"] = {}, ["array:get"] = { 1, 1 },
    ["array:set"] = { 1, 1, 1 }, ["array:copy"] = { bp.ones(1, 1) }, ["array:fill"] = { 1 },
    ["generator:uniform"] = { 0, 1, 1, 1, "f32" }, ["generator:normal"] = { 0, 1, 1, 1, "f32" },
    ["generator:bernoulli"] = { 0.5, 1, 1, "f32" }, ["generator:permutation"] = { 1 },
  }

  it("have the parameters of functions written in C: these take as many and no more", function()
    local wrong = {}
    each_function(function(owner, name, f)
      local full, item = full_name(owner, name), annotated[owner][name]
      local _, inner = debug.getupvalue(f, 1)
      if debug.getinfo(f, "S").what ~= "C" or row_of[name] or type(inner) == "function" then return end
      local arguments = fitting[full]
      if not arguments or #arguments ~= #item.params then
        wrong[#wrong + 1] = full .. ": its number of parameters is not what this spec knows"
        return
      end
      local self = owner == "array" and bp.ones(1, 1) or owner == "generator" and bp.rng(1) or nil
      local function call(...)
        if self then return f(self, ...) end
        return f(...)
      end
      call(table.unpack(arguments))
      arguments[#arguments + 1] = 1
      local ok, message = pcall(call, table.unpack(arguments))
      if ok or not (message:find("at most") or message:find("expected two positions")) then
        wrong[#wrong + 1] = full .. " takes more arguments than are annotated"
      end
    end)
    report(wrong)
  end)

  it("describe every function, its parameters and its results", function()
    local poor = {}
    local in_place = { axpy = true, release = true, set = true, step = true, close = true, set_threads = true,
      check_finite = true }
    for owner, functions in pairs(annotated) do
      for name, item in pairs(functions) do
        local full = full_name(owner, name)
        if #item.text == 0 or #item.text[1] < 6 then poor[#poor + 1] = full .. ": what does it do?" end
        for _, param in ipairs(item.params) do
          if param.type == "" then poor[#poor + 1] = full .. ": " .. param.name .. " has no type" end
        end
        if (#item.results == 0) ~= (in_place[name] and not (owner == "bp" and name == "set") or false) then
          poor[#poor + 1] = full .. ": @return"
        end
      end
    end
    for name, field in pairs(classes.backprop) do
      if field.text == "" then poor[#poor + 1] = "bp." .. name end
    end
    report(poor)
  end)

  it("are those of the rows, word by word (`make annotations` writes them)", function()
    local renewed = annotations.renewed(content, rows, function(name) return core.methods[name] ~= nil end)
    assert(renewed == content, "the operations' part of " .. annotations.path .. " is not that of the rows")
  end)

  it("give operations the types of result that their samples have", function()
    local kinds = {
      number = { "number" }, integer = { "number" }, ["backprop.vector"] = { "vector" },
      ["backprop.matrix"] = { "matrix" }, ["backprop.array"] = { "vector", "matrix" },
      ["backprop.value"] = { "number", "vector", "matrix" },
    }
    for _, row in ipairs(rows) do
      local item = annotated.bp[row.name]
      for k, sample in ipairs(row.samples) do
        local got, possible = bp.kind((bp[row.name](table.unpack(sample)))), {}
        if item.results[1].type == "T" then possible[bp.kind(sample[1])] = true end
        for word in item.results[1].type:gmatch("[^|]+") do
          for _, kind in ipairs(kinds[word] or {}) do possible[kind] = true end
        end
        assert(possible[got] or item.results[1].type == "any",
          ("bp.%s, sample %d: a %s, annotated as %s"):format(row.name, k, got, item.results[1].type))
      end
    end
  end)

  it("are Lua, and never loaded", function()
    assert(loadfile(annotations.path))
    assert(package.loaded["backprop.meta"] == nil)
  end)
end)

describe("the rows of operations", function()
  it("have documentation, a formula and samples", function()
    for _, row in ipairs(rows) do
      assert(#row.doc > 3 and row.doc:find("%.$"), row.name .. ": doc")
      assert(row.differentiable == (row.formula ~= "no gradient"), row.name .. ": formula")
      assert(not row.differentiable or row.formula:find("; d"), row.name .. ": the formula has no derivative")
      assert(#row.samples > 0, row.name .. ": samples")
    end
  end)
end)

-- Tests ---------------------------------------------------------------------------------------------------------------

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

local function specs()
  local texts = {}
  local list <close> = assert(io.popen("ls spec/*_spec.lua"))
  for path in list:lines() do
    if not path:find("gate_spec") and not path:find("errors_spec") then texts[#texts + 1] = read(path) end
  end
  return table.concat(texts, "\n")
end

describe("every public function", function()
  -- Methods that are operations are the same functions. What a spec loops over by name stands there in a string.
  it("has a test", function()
    local text, missing = specs(), {}
    each_function(function(owner, name, f)
      if owner == "array" and f == bp[name] then return end
      local called = owner:find("^bp") and owner:gsub("%.", "%%.") .. "%." .. name .. "%f[^%w_]"
        or "[%w_%)%]]:" .. name .. "%f[^%w_]"
      local looped = (owner == "bp.optim" or row_of[name]) and '[" ]' .. name .. '[" ]'
      if not text:find(called) and not (looped and text:find(looped)) then
        missing[#missing + 1] = full_name(owner, name) .. " has no test"
      end
    end)
    report(missing)
  end)

  -- What no argument is wrong for.
  local takes_anything = { ["bp.kind"] = true, ["bp.ops"] = true }

  it("has a wrong call in spec/errors/, or takes anything", function()
    local codes, missing = {}, {}
    for _, file in ipairs(wrong_calls.files) do
      for _, case in ipairs(wrong_calls.read(file)) do codes[#codes + 1] = case.code end
    end
    local text = table.concat(codes, "\n")
    each_function(function(owner, name)
      local full = full_name(owner, name)
      if row_of[name] and annotated.bp[name].params[1].name == "x" and #annotated.bp[name].params <= 2 then return end
      local pattern = owner:find("^bp") and full:gsub("%.", "%%.") .. "%f[^%w_]" or "[:.]" .. name .. "%f[^%w_]"
      if not takes_anything[full] and not text:find(pattern) then missing[#missing + 1] = full end
    end)
    report(missing)
  end)
end)

-- Printing ------------------------------------------------------------------------------------------------------------

describe("tostring", function()
  it("tells of everything public what it is", function()
    local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" })
    local Net = bp.record("Net", { "hidden", Layer }, { "size", bp.static })
    local layer = Layer{ w = bp.eye(2), b = bp.zeros(2) }
    local _, pullback = bp.vjp(function(x, y) return x * y end, 2, 3)
    local sgd = bp.optim.sgd{ lr = 0.5, momentum = 0.9 }
    sgd:step({ 1 }, { 1 })
    local stale
    bp.grad(function(x)
      assert.equal("tracked 2.0", tostring(x))
      assert.equal("tracked vector 2 f64 [0, 2]", tostring(bp.vector{ 0, x }))
      assert.equal("Layer{w = matrix 2x2 f64, b = tracked vector 2 f64}",
        tostring(Layer{ w = bp.eye(2), b = bp.vector{ x, x } }))
      stale = x
      return x
    end)(2)
    local checked = bp.check(function(x) return x * x end, 3)
    local expected = {
      { "vector 2 f32 [1, 2]", bp.vector({ 1, 2 }, "f32") },
      { "matrix 1x2 f64 [[1, 2]]", bp.matrix{ { 1, 2 } } },
      { "generator of seed 7", bp.rng(7) },
      { "record type Layer", Layer },
      { "Layer{w = matrix 2x2 f64, b = vector 2 f64}", layer },
      { "Net{hidden = Layer{w = matrix 2x2 f64, b = vector 2 f64}, size = 3}", Net{ hidden = layer, size = 3 } },
      { "Layer.lens", Layer.lens }, { "Layer.lens.w", Layer.lens.w }, { "Net.lens.hidden.w", Net.lens.hidden.w },
      { "bp.each .. bp.at(1)", bp.each .. bp.at(1) },
      { "bp.static", bp.static }, { 'bp.list("matrix")', bp.list("matrix") }, { "bp.list(Layer)", bp.list(Layer) },
      { "sgd{lr = 0.5, momentum = 0.9, nesterov = false, weight_decay = 0} after 1 step", sgd },
      { "pullback to 2 arguments", pullback },
      { "tracked value whose call has ended", stale },
      { "bp.check: 1 components and directions agree, 0 skipped", checked },
    }
    for _, pair in ipairs(expected) do assert.equal(pair[1], tostring(pair[2])) end
    pullback:close()
    assert.equal("closed pullback to 2 arguments", tostring(pullback))
    local v = bp.zeros(2)
    bp.release(v)
    assert.equal("released array", tostring(v))
  end)
end)

-- The reference -------------------------------------------------------------------------------------------------------

describe("the reference", function()
  it("is built by LDoc without a warning, and has every name", function()
    local folder <close> = setmetatable({ path = os.tmpname() .. ".doc" }, {
      __close = function(self) os.execute("rm -rf '" .. self.path .. "'") end,
    })
    assert(os.execute(("mkdir -p '%s'"):format(folder.path)))
    local file = assert(io.open(folder.path .. "/backprop.lua", "w"))
    file:write(manual.text(items))
    file:close()
    local run <close> = assert(io.popen(("env -u LUA_PATH -u LUA_CPATH -u LUA_PATH_5_4 -u LUA_CPATH_5_4 ldoc -q "
      .. "--fatalwarnings -c config.ld -d '%s/out' '%s' 2>&1"):format(folder.path, folder.path)))
    local said = run:read("a")
    assert(run:close(), said)
    local page = read(folder.path .. "/out/index.html")
    local missing = {}
    each_function(function(owner, name)
      local method = owner == "array" and not annotated.array[name]
      local shown = page:find('name = "' .. full_name(owner, name) .. '"', 1, true)
      if not shown and not (method and page:find(">" .. name .. "<") or page:find("[ ,]" .. name .. "[,.]")) then
        missing[#missing + 1] = full_name(owner, name)
      end
    end)
    for name in pairs(classes.backprop) do
      if not page:find('name = "bp.' .. name .. '"', 1, true) then missing[#missing + 1] = "bp." .. name end
    end
    report(missing)
  end)
end)
