/* The map keeps what it is given through growth and removal. */
#include "common/map.h"
#include "tests/support/test.h"

struct item {
    struct sl_map_node node;
    char key[16];
};

TEST(finds_what_was_added_after_growth)
{
    enum { COUNT = 1000 };
    struct sl_map map;
    struct item *items = calloc(COUNT, sizeof(*items));
    CHECK(items != NULL && sl_map_init(&map) == 0);
    for (int i = 0; i < COUNT; i++) {
        snprintf(items[i].key, sizeof(items[i].key), "key-%d", i);
        sl_map_add(&map, &items[i].node, sl_span_of(items[i].key));
    }
    for (int i = 0; i < COUNT; i += 2) {
        sl_map_remove(&map, &items[i].node);
    }
    CHECK_INT(map.len, COUNT / 2);
    for (int i = 0; i < COUNT; i++) {
        struct sl_map_node *node = sl_map_find(&map, sl_span_of(items[i].key));
        CHECK(node == (i % 2 == 0 ? NULL : &items[i].node));
    }
    int seen = 0;
    for (struct sl_map_node *n = sl_map_next(&map, NULL); n != NULL; n = sl_map_next(&map, n)) {
        seen++;
    }
    CHECK_INT(seen, COUNT / 2);
    sl_map_fini(&map);
    free(items);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"finds_what_was_added_after_growth", finds_what_was_added_after_growth},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
