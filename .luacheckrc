-- luacheck 1.1 (Debian: lua-check). Specs use busted's globals; annotations for the language server name what they
-- never use.
std = "lua54"
max_line_length = 120
cache = false
files["spec"] = { std = "+busted" }
files["lua/backprop/meta.lua"] = { ignore = { "2" }, max_line_length = 150 } -- an annotation is one line
