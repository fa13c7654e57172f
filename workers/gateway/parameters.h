/* The query string of a request, and what stands in its path, as names that were decoded. Pure. */
#ifndef SLUICE_GATEWAY_PARAMETERS_H
#define SLUICE_GATEWAY_PARAMETERS_H

#include "common/codec.h"

/* One that a path knows. Decoded it is UTF-8 of 1 to max bytes without control characters. */
struct parameter {
    const char *name;
    size_t max;
    bool required;
    struct sl_span value; /* Result, in the arena; data NULL: not given. */
};

/* Reads them all; others are refused, as is one that is there twice. 0; -SL_EINVAL with the fault
 * set; -SL_ENOMEM. */
int parameters_read(struct sl_span query, struct parameter *table, size_t count,
                    struct sl_arena *arena, struct sl_fault *fault) SL_CHECKED;
/* value, as a whole number; fallback where it is not given. 0, or -SL_EINVAL with the fault set. */
int parameter_number(const struct parameter *parameter, long long min, long long max,
                     long long fallback, long long *ret, struct sl_fault *fault) SL_CHECKED;
/* A part of a path, which may hold "/": as parameters_read says of a value. */
int path_part_read(struct sl_span part, const char *name, size_t max, struct sl_arena *arena,
                   struct sl_span *ret, struct sl_fault *fault) SL_CHECKED;

#endif
