/* The digest is BLAKE2b-256 (figures of Python's hashlib), and parts keep their bounds. */
#include "common/digest.h"
#include "tests/support/test.h"

static void check_digest(struct sl_span text, const char *want)
{
    unsigned char digest[SL_DIGEST_SIZE];
    char hex[2 * SL_DIGEST_SIZE + 1];
    sl_digest(&text, 1, digest);
    for (size_t i = 0; i < SL_DIGEST_SIZE; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
    CHECK_STR(hex, want);
}

TEST(it_is_blake2b_at_each_length_of_the_last_block)
{
    char text[1000];
    memset(text, 'a', sizeof(text));
    check_digest(SL_SPAN(""), "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    check_digest(SL_SPAN("abc"),
                 "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    check_digest((struct sl_span){text, 128},
                 "ae2aa48507885c4c950fb809b2076f959cde9f8ea6da260d9a3587df33dac450");
    check_digest((struct sl_span){text, 129},
                 "2f64744a6de0d2c0b56e64cf6e29a5aaa255010d415d51c75ccc82f73dccd865");
    memset(text, 'x', sizeof(text));
    check_digest((struct sl_span){text, 1000},
                 "ab75119ede14ef06ebf31f745fb655ed006cccfe8054c635308a557f7c9beaba");
}

TEST(parts_that_read_the_same_together_differ)
{
    const struct sl_span a[] = {SL_SPAN("ab"), SL_SPAN("c")}, b[] = {SL_SPAN("a"), SL_SPAN("bc")};
    unsigned char digests[3][SL_DIGEST_SIZE];
    sl_digest(a, 2, digests[0]);
    sl_digest(b, 2, digests[1]);
    sl_digest(a, 2, digests[2]);
    CHECK(memcmp(digests[0], digests[1], SL_DIGEST_SIZE) != 0);
    CHECK(memcmp(digests[0], digests[2], SL_DIGEST_SIZE) == 0);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"it_is_blake2b_at_each_length_of_the_last_block",
         it_is_blake2b_at_each_length_of_the_last_block},
        {"parts_that_read_the_same_together_differ", parts_that_read_the_same_together_differ},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
