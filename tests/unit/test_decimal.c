/* Floats as text: what printf's %.9g would write, and read back as the same float. */
#include "common/decimal.h"
#include "tests/support/test.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(float value, char out[SL_FLOAT_TEXT_MAX + 1])
{
    size_t len = sl_float_text(value, out);
    CHECK(len <= SL_FLOAT_TEXT_MAX);
    out[len] = 0;
    return out;
}

TEST(float_as_printf_has_it)
{
    static const float values[] = {
        0,       -0.0f,     1,           -1,    0.5f,       0.1f,         0.0625f,
        1.5f,    1e-4f,     0.00012f,    1e-5f, 9.9999e-5f, 100,          123456792,
        1e8f,    999999936, 1e9f,        1e10f, -2.5e-20f,  3.25e20f,     FLT_MAX,
        FLT_MIN, 1e-45f,    0.99999994f, 10.5f, 99999.99f,  0.032786884f, -0.7071068f,
    };
    char out[SL_FLOAT_TEXT_MAX + 1], wanted[32];
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        snprintf(wanted, sizeof(wanted), "%.9g", (double)values[i]);
        CHECK_STR(text_of(values[i], out), wanted);
    }
}

TEST(every_float_reads_back_the_same)
{
    char out[SL_FLOAT_TEXT_MAX + 1];
    /* A step that is prime to 2^32 visits all exponents and ever other digits. */
    for (uint32_t bits = 0, n = 0; n < 200000; n++, bits += 2654435769u) {
        float value;
        memcpy(&value, &bits, sizeof(value));
        if (isfinite(value)) {
            float again = strtof(text_of(value, out), NULL);
            CHECK(memcmp(&again, &value, sizeof(value)) == 0);
        }
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"float_as_printf_has_it", float_as_printf_has_it},
        {"every_float_reads_back_the_same", every_float_reads_back_the_same},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
