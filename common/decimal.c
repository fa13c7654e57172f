/*
 * Nine digits tell every float from the next. They come from one multiplication: a float has 24
 * bits, so its product with a power of ten, in a double's 53, is off by far less than the ninth
 * digit, and reading back needs no more.
 */
#include "common/decimal.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { DIGITS = 9, POWERS = 23, PLAIN_MIN = -4 };

/* 10^0 to 10^22: those that a double holds exactly. */
static const double powers[POWERS] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static double scale(double x, int power)
{
    for (; power >= POWERS; power -= POWERS - 1) {
        x *= powers[POWERS - 1];
    }
    for (; power <= -POWERS; power += POWERS - 1) {
        x /= powers[POWERS - 1];
    }
    return power >= 0 ? x * powers[power] : x / powers[-power];
}

/* The first nine digits of x > 0, and the power of ten of the first. */
static uint32_t first_digits(double x, int *ret_power)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits)); /* Normal: each float but zero is one as a double. */
    int binary = (int)(bits >> 52) - 1023;
    int power = (binary * 1233) >> 12; /* log10(2) of it, rounded down: at most one too low. */
    double scaled = scale(x, DIGITS - 1 - power);
    if (scaled >= 999999999.5) {
        power++;
        scaled = scale(x, DIGITS - 1 - power);
    }
    *ret_power = power;
    return (uint32_t)(scaled + 0.5);
}

static size_t put_exponent(char *out, int power)
{
    unsigned size = (unsigned)(power < 0 ? -power : power); /* Two digits: at most 45. */
    out[0] = 'e';
    out[1] = power < 0 ? '-' : '+';
    out[2] = (char)('0' + size / 10);
    out[3] = (char)('0' + size % 10);
    return 4;
}

/* The first `whole` of len digits, a point if there are more, and those. */
static size_t put_point(char *out, const char *digits, size_t len, size_t whole)
{
    memcpy(out, digits, whole);
    if (len <= whole) {
        return whole;
    }
    out[whole] = '.';
    memcpy(out + whole + 1, digits + whole, len - whole);
    return len + 1;
}

size_t sl_float_text(float value, char ret[SL_FLOAT_TEXT_MAX])
{
    char digits[DIGITS];
    size_t len = DIGITS, at = 0;
    int power = 0;
    assert(isfinite(value));
    if (signbit(value)) {
        ret[at++] = '-';
    }
    uint32_t number = value == 0 ? 0 : first_digits(fabs((double)value), &power);
    for (size_t i = DIGITS; i > 0; number /= 10) {
        digits[--i] = (char)('0' + number % 10);
    }
    while (len > 1 && digits[len - 1] == '0') {
        len--;
    }
    if (power < PLAIN_MIN || power >= DIGITS) {
        at += put_point(ret + at, digits, len, 1);
        return at + put_exponent(ret + at, power);
    }
    if (power >= 0) {
        return at + put_point(ret + at, digits, len, (size_t)power + 1);
    }
    memcpy(ret + at, "0.000", 5);
    at += 1 + (size_t)-power;
    memcpy(ret + at, digits, len);
    return at + len;
}
