/* The error table's look-ups. A code that is not in the table is a mistake of ours. */
#include "common/error.h"

#include <assert.h>
#include <stddef.h>

/* clang-format off */
static const struct {
    const char *name;
    const char *text;
    enum sl_class class;
} errors[] = {
    {"OK", "success", SL_CLASS_GIVE_UP},
#define X(name, class, text) {#name, text, SL_CLASS_##class},
    SL_ERRORS(X)
#undef X
};
/* clang-format on */

static size_t error_index(int err)
{
    assert(err <= 0 && (size_t)-err < sizeof(errors) / sizeof(errors[0]));
    return (size_t)-err;
}

const char *sl_error_text(int err)
{
    return errors[error_index(err)].text;
}

const char *sl_error_name(int err)
{
    return errors[error_index(err)].name;
}

enum sl_class sl_error_class(int err)
{
    return errors[error_index(err)].class;
}
