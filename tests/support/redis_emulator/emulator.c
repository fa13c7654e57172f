/*
 * Values by key. Keys expire when they are looked at: nobody can tell that from a server that looks
 * by itself. Everything is small here, so that elements are plain arrays, searched from the
 * beginning. A snapshot is an emulator of its own, without scripts, that nobody asks.
 */
#include "tests/support/redis_emulator/emulator_internal.h"

#include "common/list.h"
#include "tests/support/test.h"

struct emulator_snapshot {
    struct emulator emulator;
};

int64_t emulator_now_ms(const struct emulator *emulator)
{
    return emulator->now_us / 1000;
}

/* --- bytes --- */

struct bytes bytes_copy(struct sl_span span)
{
    struct bytes bytes = {malloc(span.len + 1), span.len};
    CHECK(bytes.data != NULL);
    if (span.len > 0) {
        memcpy(bytes.data, span.data, span.len);
    }
    bytes.data[span.len] = '\0';
    return bytes;
}

struct sl_span bytes_span(struct bytes bytes)
{
    return (struct sl_span){bytes.data, bytes.len};
}

/* --- items --- */

struct item *item_find(const struct value *value, struct sl_span name)
{
    for (size_t i = 0; i < value->len; i++) {
        if (sl_span_equal(bytes_span(value->items[i].name), name)) {
            return &value->items[i];
        }
    }
    return NULL;
}

struct item *item_insert(struct value *value, size_t i, struct sl_span name, struct sl_span bytes)
{
    if (value->len == value->cap) {
        value->cap = value->cap > 0 ? value->cap * 2 : 4;
        value->items = realloc(value->items, value->cap * sizeof(*value->items));
        CHECK(value->items != NULL);
    }
    memmove(&value->items[i + 1], &value->items[i], (value->len - i) * sizeof(*value->items));
    value->len++;
    value->items[i] = (struct item){.name = bytes_copy(name), .value = bytes_copy(bytes)};
    return &value->items[i];
}

void item_set(struct item *item, struct sl_span bytes)
{
    struct bytes copy = bytes_copy(bytes);
    free(item->value.data);
    item->value = copy;
}

static void item_fini(struct item *item)
{
    free(item->name.data);
    free(item->value.data);
}

void item_remove(struct value *value, size_t i)
{
    item_fini(&value->items[i]);
    value->len--;
    memmove(&value->items[i], &value->items[i + 1], (value->len - i) * sizeof(*value->items));
}

/* --- values --- */

void value_delete(struct emulator *emulator, struct value *value)
{
    sl_map_remove(&emulator->values, &value->node);
    for (size_t i = 0; i < value->len; i++) {
        item_fini(&value->items[i]);
    }
    free(value->items);
    free(value->key.data);
    free(value);
}

struct value *value_find(struct emulator *emulator, struct sl_span key)
{
    struct sl_map_node *node = sl_map_find(&emulator->values, key);
    if (node == NULL) {
        return NULL;
    }
    struct value *value = SL_ITEM(node, struct value, node);
    if (value->expires_ms != 0 && emulator_now_ms(emulator) > value->expires_ms) {
        value_delete(emulator, value);
        return NULL;
    }
    return value;
}

struct value *value_make(struct emulator *emulator, struct sl_span key, enum value_type type)
{
    struct value *value = calloc(1, sizeof(*value));
    CHECK(value != NULL);
    value->type = type;
    value->key = bytes_copy(key);
    sl_map_add(&emulator->values, &value->node, bytes_span(value->key));
    return value;
}

/* --- the whole --- */

void emulator_flush(struct emulator *emulator)
{
    struct sl_map_node *node = sl_map_next(&emulator->values, NULL);
    while (node != NULL) {
        struct sl_map_node *next = sl_map_next(&emulator->values, node);
        value_delete(emulator, SL_ITEM(node, struct value, node));
        node = next;
    }
}

static void copy_all(struct emulator *to, const struct emulator *from)
{
    const struct sl_map_node *node = sl_map_next(&from->values, NULL);
    for (; node != NULL; node = sl_map_next(&from->values, node)) {
        const struct value *old =
            (const struct value *)(const void *)((const char *)node - offsetof(struct value, node));
        struct value *value = value_make(to, bytes_span(old->key), old->type);
        value->expires_ms = old->expires_ms;
        for (size_t i = 0; i < old->len; i++) {
            const struct item *item = &old->items[i];
            item_insert(value, i, bytes_span(item->name), bytes_span(item->value))->score =
                item->score;
        }
    }
}

struct emulator_snapshot *emulator_save(const struct emulator *emulator)
{
    struct emulator_snapshot *snapshot = calloc(1, sizeof(*snapshot));
    CHECK(snapshot != NULL && sl_map_init(&snapshot->emulator.values) == 0);
    copy_all(&snapshot->emulator, emulator);
    return snapshot;
}

void emulator_load(struct emulator *emulator, const struct emulator_snapshot *snapshot)
{
    emulator_flush(emulator);
    copy_all(emulator, &snapshot->emulator);
}

void emulator_snapshot_destroy(struct emulator_snapshot *snapshot)
{
    if (snapshot != NULL) {
        emulator_flush(&snapshot->emulator);
        sl_map_fini(&snapshot->emulator.values);
        free(snapshot);
    }
}

struct emulator *emulator_create(void)
{
    struct emulator *emulator = calloc(1, sizeof(*emulator));
    CHECK(emulator != NULL && sl_map_init(&emulator->values) == 0);
    emulator_lua_init(emulator);
    return emulator;
}

void emulator_destroy(struct emulator *emulator)
{
    emulator_flush(emulator);
    sl_map_fini(&emulator->values);
    emulator_lua_fini(emulator);
    free(emulator);
}

void emulator_set_time(struct emulator *emulator, int64_t us)
{
    emulator->now_us = us;
}

void emulator_set_full(struct emulator *emulator, bool full)
{
    emulator->full = full;
}

void emulator_on_publish(struct emulator *emulator,
                         void (*cb)(void *ctx, struct sl_span channel, struct sl_span message),
                         void *ctx)
{
    emulator->on_publish = cb;
    emulator->publish_ctx = ctx;
}

struct sl_span emulator_hash_field(struct emulator *emulator, const char *key, const char *field)
{
    const struct value *value = value_find(emulator, sl_span_of(key));
    CHECK(value == NULL || value->type == VALUE_HASH);
    const struct item *item = value != NULL ? item_find(value, sl_span_of(field)) : NULL;
    return item != NULL ? bytes_span(item->value) : (struct sl_span){NULL, 0};
}

size_t emulator_zset_len(struct emulator *emulator, const char *key)
{
    const struct value *value = value_find(emulator, sl_span_of(key));
    CHECK(value == NULL || value->type == VALUE_ZSET);
    return value != NULL ? value->len : 0;
}
