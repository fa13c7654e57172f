/*
 * Scripts, by Lua 5.1 as in Redis. A script is compiled once and kept by its text. What differs
 * from plain Lua is what Redis does (its script_lua.c):
 *
 *   into Lua      integer: number; string: string; nil: false; array: table; error: raised
 *   out of Lua    number: integer, what is behind the point cut off; string: string; true: 1;
 *                 false and nil: nil; table: array up to its first nil, or {err=}, {ok=}
 *   arguments of redis.call    numbers as "%.17g"
 *
 * A global that is set or read without being there is an error. An error that a script does not
 * catch is its reply; what it wrote before stays.
 */
#include "tests/support/redis_emulator/emulator_internal.h"
#include "tests/support/test.h"

#include <lua.h>
#include <lualib.h>

#include <lauxlib.h>

enum { ARGS_MAX = 64, REPLY_MAX = 16 << 20 };

/* --- into Lua --- */

static long long number_at(const char **at)
{
    char *end;
    long long value = strtoll(*at, &end, 10);
    CHECK(end[0] == '\r' && end[1] == '\n');
    *at = end + 2;
    return value;
}

static void push_line(lua_State *lua, const char **at, const char *field)
{
    const char *end = strstr(*at, "\r\n");
    CHECK(end != NULL);
    lua_newtable(lua);
    lua_pushlstring(lua, *at, (size_t)(end - *at));
    lua_setfield(lua, -2, field);
    *at = end + 2;
}

/* One reply, at *at, onto the stack. */
static void push_reply(lua_State *lua, const char **at)
{
    luaL_checkstack(lua, 4, "a reply");
    char type = *(*at)++;
    if (type == '+' || type == '-') {
        push_line(lua, at, type == '+' ? "ok" : "err");
        return;
    }
    long long number = number_at(at);
    if (type == ':') {
        lua_pushnumber(lua, (lua_Number)number);
    } else if (number < 0) {
        lua_pushboolean(lua, 0);
    } else if (type == '$') {
        lua_pushlstring(lua, *at, (size_t)number);
        *at += number + 2;
    } else {
        CHECK(type == '*');
        lua_newtable(lua);
        for (int i = 1; i <= number; i++) {
            push_reply(lua, at);
            lua_rawseti(lua, -2, i);
        }
    }
}

/* --- what scripts call --- */

static struct sl_span argument(lua_State *lua, int i, char number[32])
{
    if (lua_type(lua, i) == LUA_TNUMBER) {
        snprintf(number, 32, "%.17g", (double)lua_tonumber(lua, i));
        return sl_span_of(number);
    }
    struct sl_span text = {NULL, 0};
    text.data = lua_tolstring(lua, i, &text.len);
    return text;
}

static int on_call(lua_State *lua)
{
    struct emulator *emulator = lua_touserdata(lua, lua_upvalueindex(1));
    struct sl_span argv[ARGS_MAX];
    char numbers[ARGS_MAX][32];
    int argc = lua_gettop(lua);
    CHECK(argc > 0 && argc <= ARGS_MAX);
    for (int i = 0; i < argc; i++) {
        argv[i] = argument(lua, i + 1, numbers[i]);
        if (argv[i].data == NULL) {
            return luaL_error(lua, "Lua redis lib command arguments must be strings or integers");
        }
    }
    struct sl_buf reply;
    sl_buf_init(&reply, REPLY_MAX);
    emulator_command(emulator, (size_t)argc, argv, &reply);
    sl_buf_append(&reply, "", 1);
    CHECK(sl_buf_error(&reply) == 0);
    const char *at = reply.data;
    bool failed = *at == '-';
    push_reply(lua, &at);
    sl_buf_fini(&reply);
    return failed ? lua_error(lua) : 1;
}

static int on_unknown_global(lua_State *lua)
{
    return luaL_error(lua, "Script attempted to access nonexistent global variable '%s'",
                      lua_tostring(lua, 2));
}

static int on_new_global(lua_State *lua)
{
    return luaL_error(lua, "Attempt to modify a readonly table: '%s'", lua_tostring(lua, 2));
}

/* --- out of Lua --- */

static void put_value(lua_State *lua, struct sl_buf *reply);

static bool put_field(lua_State *lua, struct sl_buf *reply, const char *name, char type)
{
    lua_pushstring(lua, name);
    lua_rawget(lua, -2);
    bool is_text = lua_type(lua, -1) == LUA_TSTRING;
    if (is_text) {
        sl_buf_printf(reply, "%c%s\r\n", type, lua_tostring(lua, -1));
    }
    lua_pop(lua, 1);
    return is_text;
}

static void put_table(lua_State *lua, struct sl_buf *reply)
{
    if (put_field(lua, reply, "err", '-') || put_field(lua, reply, "ok", '+')) {
        return;
    }
    struct sl_buf items;
    size_t len = 0;
    sl_buf_init(&items, REPLY_MAX);
    for (int i = 1;; i++, len++) {
        lua_rawgeti(lua, -1, i);
        if (lua_isnil(lua, -1)) {
            lua_pop(lua, 1);
            break;
        }
        put_value(lua, &items);
        lua_pop(lua, 1);
    }
    reply_array(reply, len);
    sl_buf_append_span(reply, sl_buf_span(&items));
    CHECK(sl_buf_error(&items) == 0);
    sl_buf_fini(&items);
}

/* The value on top, which stays there. */
static void put_value(lua_State *lua, struct sl_buf *reply)
{
    struct sl_span text = {NULL, 0};
    luaL_checkstack(lua, 4, "an answer");
    switch (lua_type(lua, -1)) {
    case LUA_TNUMBER:
        reply_int(reply, (long long)lua_tonumber(lua, -1));
        break;
    case LUA_TSTRING:
        text.data = lua_tolstring(lua, -1, &text.len);
        reply_bulk(reply, text);
        break;
    case LUA_TBOOLEAN:
        if (lua_toboolean(lua, -1)) {
            reply_int(reply, 1);
        } else {
            reply_nil(reply);
        }
        break;
    case LUA_TTABLE:
        put_table(lua, reply);
        break;
    default:
        reply_nil(reply);
    }
}

static void put_failure(lua_State *lua, struct sl_buf *reply)
{
    if (lua_istable(lua, -1) && put_field(lua, reply, "err", '-')) {
        return;
    }
    const char *why = lua_tostring(lua, -1);
    sl_buf_printf(reply, "-ERR %s\r\n", why != NULL ? why : "unknown");
}

/* --- running --- */

/* The compiled script onto the stack. */
static void push_script(lua_State *lua, struct sl_span text)
{
    lua_getfield(lua, LUA_REGISTRYINDEX, "scripts");
    lua_pushlstring(lua, text.data, text.len);
    lua_rawget(lua, -2);
    if (lua_isnil(lua, -1)) {
        lua_pop(lua, 1);
        if (luaL_loadbuffer(lua, text.data, text.len, "@user_script") != 0) {
            fprintf(stderr, "%s\n", lua_tostring(lua, -1));
            abort();
        }
        lua_pushlstring(lua, text.data, text.len);
        lua_pushvalue(lua, -2);
        lua_rawset(lua, -4);
    }
    lua_remove(lua, -2);
}

static void set_list(lua_State *lua, const char *name, size_t len, const struct sl_span *texts)
{
    lua_pushstring(lua, name);
    lua_createtable(lua, (int)len, 0);
    for (size_t i = 0; i < len; i++) {
        lua_pushlstring(lua, texts[i].data != NULL ? texts[i].data : "", texts[i].len);
        lua_rawseti(lua, -2, (int)i + 1);
    }
    lua_rawset(lua, LUA_GLOBALSINDEX);
}

void emulator_eval(struct emulator *emulator, struct sl_span text, size_t key_count, size_t argc,
                   const struct sl_span *argv, struct sl_buf *reply)
{
    lua_State *lua = emulator->lua;
    CHECK(key_count <= argc && !emulator->in_script);
    if (text.len > 0 && text.data[text.len - 1] == '\0') {
        text.len--;
    }
    set_list(lua, "KEYS", key_count, argv);
    set_list(lua, "ARGV", argc - key_count, argv + key_count);
    push_script(lua, text);
    emulator->in_script = true;
    emulator->dirty = false;
    if (lua_pcall(lua, 0, 1, 0) == 0) {
        put_value(lua, reply);
    } else {
        put_failure(lua, reply);
    }
    emulator->in_script = emulator->dirty = false;
    lua_settop(lua, 0);
}

static void open_libraries(lua_State *lua)
{
    static const struct {
        const char *name;
        lua_CFunction open;
    } libraries[] = {{"", luaopen_base},
                     {LUA_TABLIBNAME, luaopen_table},
                     {LUA_STRLIBNAME, luaopen_string},
                     {LUA_MATHLIBNAME, luaopen_math}};
    for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
        lua_pushcfunction(lua, libraries[i].open);
        lua_pushstring(lua, libraries[i].name);
        lua_call(lua, 1, 0);
    }
}

void emulator_lua_init(struct emulator *emulator)
{
    lua_State *lua = emulator->lua = luaL_newstate();
    CHECK(lua != NULL);
    open_libraries(lua);
    lua_newtable(lua);
    lua_setfield(lua, LUA_REGISTRYINDEX, "scripts");
    lua_newtable(lua);
    lua_pushlightuserdata(lua, emulator);
    lua_pushcclosure(lua, on_call, 1);
    lua_setfield(lua, -2, "call");
    lua_setfield(lua, LUA_GLOBALSINDEX, "redis");
    lua_newtable(lua); /* The globals' metatable. */
    lua_pushcfunction(lua, on_unknown_global);
    lua_setfield(lua, -2, "__index");
    lua_pushcfunction(lua, on_new_global);
    lua_setfield(lua, -2, "__newindex");
    lua_pushvalue(lua, LUA_GLOBALSINDEX);
    lua_insert(lua, -2);
    lua_setmetatable(lua, -2);
    lua_settop(lua, 0);
}

void emulator_lua_fini(struct emulator *emulator)
{
    lua_close(emulator->lua);
}
