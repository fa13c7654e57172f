/* Steps through JSON without building a tree: the stub needs three or four members of a body that
 * is mostly passages or a vector. Brackets and quotes are followed, values are not checked. */
#ifndef SLUICE_BENCH_UPSTREAM_JSON_H
#define SLUICE_BENCH_UPSTREAM_JSON_H

#include "common/buf.h"

#include <stdint.h>

enum upstream_step { UPSTREAM_END, UPSTREAM_ITEM, UPSTREAM_BAD };

/* The next member of an object, or element of an array (key is untouched): start with *at = 0. The
 * key is without its quotes and not unescaped, the value is its text; both borrowed. _BAD: not an
 * object or array, or cut short. */
enum upstream_step upstream_json_member(struct sl_span object, size_t *at, struct sl_span *key,
                                        struct sl_span *value);
enum upstream_step upstream_json_element(struct sl_span array, size_t *at, struct sl_span *value);

#endif
