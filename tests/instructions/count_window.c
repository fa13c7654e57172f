/* Offsets of one partition: 1024 of them taken and ended, in order with one in flight, in order
 * with 512 in flight, and in another order. */
#include "common/window.h"
#include "tests/instructions/count.h"

enum { OFFSETS = 1024, IN_FLIGHT = 512, BLOCK = 64, STRIDE = 37 };

struct stream {
    struct sl_window window;
    int64_t next, in_flight;
};

static void take(struct stream *s)
{
    CHECK(sl_window_take(&s->window, s->next++) == 0);
}

/* The oldest in flight ends when the next is taken. */
static void in_order(void *ctx)
{
    struct stream *s = ctx;
    for (int i = 0; i < OFFSETS; i++) {
        take(s);
        CHECK(sl_window_end(&s->window, s->next - 1 - s->in_flight));
    }
}

/* Blocks of 64, each offset of which ends at another time. */
static void shuffled(void *ctx)
{
    struct stream *s = ctx;
    for (int i = 0; i < OFFSETS; i++) {
        take(s);
        int64_t at = s->next - 1 - s->in_flight, in_block = at % BLOCK;
        (void)sl_window_end(&s->window, at - in_block + in_block * STRIDE % BLOCK);
    }
}

static unsigned run(int64_t in_flight, void (*step)(void *ctx))
{
    struct stream s = {.in_flight = in_flight};
    sl_window_init(&s.window);
    for (int64_t i = 0; i < in_flight; i++) {
        take(&s);
    }
    unsigned operations = measure(step, &s);
    sl_window_fini(&s.window);
    return operations;
}

static unsigned one_in_flight(void)
{
    return run(0, in_order);
}

static unsigned in_order_512(void)
{
    return run(IN_FLIGHT, in_order);
}

static unsigned shuffled_512(void)
{
    return run(IN_FLIGHT, shuffled);
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"one_in_flight", one_in_flight},
        {"in_order_512", in_order_512},
        {"shuffled_512", shuffled_512},
        {NULL, NULL},
    };
    return count_main(cases, argc, argv);
}
