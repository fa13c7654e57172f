/* The emulator's own view: values by key (emulator.c), commands (emulator_commands.c) and scripts
 * (emulator_lua.c). */
#ifndef TESTS_SUPPORT_REDIS_EMULATOR_INTERNAL_H
#define TESTS_SUPPORT_REDIS_EMULATOR_INTERNAL_H

#include "common/map.h"
#include "tests/support/redis_emulator/emulator.h"

struct lua_State;

enum value_type { VALUE_STRING, VALUE_HASH, VALUE_LIST, VALUE_ZSET, VALUE_SET };

/* Owned bytes; never NULL in use. */
struct bytes {
    char *data;
    size_t len;
};

/* One element: a string's only one has no name; a hash's and a set's are in order of insertion, a
 * sorted set's in order of score and name. */
struct item {
    struct bytes name, value;
    double score;
};

struct value {
    struct sl_map_node node;
    struct bytes key;
    enum value_type type;
    int64_t expires_ms; /* 0: never. */
    struct item *items;
    size_t len, cap;
};

struct emulator {
    struct sl_map values;
    int64_t now_us;
    bool full;
    bool in_script, dirty; /* The script that runs has written. */
    void (*on_publish)(void *ctx, struct sl_span channel, struct sl_span message);
    void *publish_ctx;
    struct lua_State *lua;
};

int64_t emulator_now_ms(const struct emulator *emulator);
struct bytes bytes_copy(struct sl_span span);
struct sl_span bytes_span(struct bytes bytes);

/* NULL: there is none, or it has expired. */
struct value *value_find(struct emulator *emulator, struct sl_span key);
struct value *value_make(struct emulator *emulator, struct sl_span key, enum value_type type);
void value_delete(struct emulator *emulator, struct value *value);
struct item *item_find(const struct value *value, struct sl_span name); /* NULL: none. */
/* At place i; name and value are copied. */
struct item *item_insert(struct value *value, size_t i, struct sl_span name, struct sl_span bytes);
void item_set(struct item *item, struct sl_span bytes);
void item_remove(struct value *value, size_t i);

void reply_error(struct sl_buf *reply, const char *text);
void reply_int(struct sl_buf *reply, long long value);
void reply_bulk(struct sl_buf *reply, struct sl_span bytes);
void reply_nil(struct sl_buf *reply);
void reply_array(struct sl_buf *reply, size_t len);

void emulator_lua_init(struct emulator *emulator);
void emulator_lua_fini(struct emulator *emulator);

#endif
