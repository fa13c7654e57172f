/* UUIDs that follow from names, compared with those of another implementation. */
#include "common/uuid.h"
#include "tests/support/test.h"

/* RFC 9562's namespace for URLs. */
static const unsigned char urls[16] = {0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1,
                                       0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};

TEST(a_name_gives_the_uuid_that_python_gives)
{
    static const struct {
        char letter;
        size_t len;
        const char *expected; /* uuid.uuid5(uuid.NAMESPACE_URL, letter * len) */
    } cases[] = {
        {'a', 0, "1b4db7eb-4057-5ddf-91e0-36dec72071f5"},
        {'a', 1, "e1407479-3136-56c0-9908-bb02fb0339e2"},
        {'b', 39, "f56cba14-bd16-5a7d-ad62-1d139b70ee63"},
        {'c', 40, "493dcb02-a044-57d1-98a8-9729743c4201"},
        {'d', 47, "432b65a8-145e-5e13-919b-67caaaf8477a"},
        {'e', 48, "2b96450d-4c10-5e6e-bdb9-9683cb5f4212"},
        {'z', 200, "fce7a250-5a1c-5653-9895-ed3ab0560e31"},
        {'x', 256, "5bc00cf8-172e-5ec5-a83b-880b0bb07b4a"},
    };
    char name[256];
    char text[SL_UUID_TEXT];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(name, cases[i].letter, sizeof(name));
        sl_uuid5(urls, (struct sl_span){name, cases[i].len}, text);
        CHECK_STR(text, cases[i].expected);
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_name_gives_the_uuid_that_python_gives", a_name_gives_the_uuid_that_python_gives},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
