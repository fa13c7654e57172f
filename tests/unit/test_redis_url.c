/* Redis URLs: what is read from good ones, what is said about bad ones. */
#include "common/redis_url.h"
#include "tests/support/test.h"

TEST(good_urls_are_taken_apart)
{
    static const struct {
        const char *text, *host;
        int port, database;
        const char *user, *password;
    } cases[] = {
        {"redis://cache", "cache", 6379, 0, "", ""},
        {"redis://cache/", "cache", 6379, 0, "", ""},
        {"REDIS://10.0.0.1:7000/3", "10.0.0.1", 7000, 3, "", ""},
        {"redis://[::1]", "::1", 6379, 0, "", ""},
        {"redis://[fe80::2]:1/15", "fe80::2", 1, 15, "", ""},
        {"redis://:secret@cache", "cache", 6379, 0, "", "secret"},
        {"redis://ann:s%40%2f%3A:x@cache:65535/0", "cache", 65535, 0, "ann", "s@/::x"},
        {"redis://ann:p@ss@cache", "cache", 6379, 0, "ann", "p@ss"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_redis_url url;
        char why[200] = "";
        int rv = sl_redis_url_parse(cases[i].text, &url, why, sizeof(why));
        CHECK_STR(why, "");
        CHECK_INT(rv, 0);
        CHECK_STR(url.host, cases[i].host);
        CHECK_INT(url.port, cases[i].port);
        CHECK_INT(url.database, cases[i].database);
        CHECK_STR(url.user, cases[i].user);
        CHECK_STR(url.password, cases[i].password);
    }
}

TEST(bad_urls_are_named_without_the_password)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "redis://"},
        {"redis:/", "redis://"},
        {"http://cache", "redis://"},
        {"rediss://cache", "TLS"},
        {"redis://", "host is missing"},
        {"redis://:hush@", "host is missing"},
        {"redis://:6379", "host is missing"},
        {"redis://cache:", "port"},
        {"redis://cache:0", "port"},
        {"redis://cache:65536", "port"},
        {"redis://cache:63 79", "port"},
        {"redis://::1", "host is missing"},
        {"redis://fe80::1", "brackets"},
        {"redis://[::1", "brackets"},
        {"redis://[::1]6379", "brackets"},
        {"redis://cache/x", "database"},
        {"redis://cache/-1", "database"},
        {"redis://cache/0?a=b", "database"},
        {"redis://hush@cache", "password"},
        {"redis://ann:@cache", "empty"},
        {"redis://:hush%4@cache", "percent"},
        {"redis://:hush%00@cache", "percent"},
        {"redis://:hush%zz@cache", "percent"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_redis_url url = {.port = 7};
        char why[200] = "";
        CHECK_INT(sl_redis_url_parse(cases[i].text, &url, why, sizeof(why)), -SL_EINVAL);
        if (strstr(why, cases[i].says) == NULL) {
            fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", cases[i].text, why, cases[i].says);
            abort();
        }
        CHECK(strstr(why, "hush") == NULL);
        CHECK_INT(url.port, 7);
    }
}

TEST(names_that_are_too_long_are_refused)
{
    char text[2200], why[200];
    struct sl_redis_url url;
    memset(text, 'a', sizeof(text));
    memcpy(text, "redis://", 8);
    text[8 + 256] = '\0';
    CHECK_INT(sl_redis_url_parse(text, &url, why, sizeof(why)), -SL_EINVAL);
    text[8 + 256] = 'a';
    memcpy(text, "redis://:", 9);
    strcpy(text + 2100, "@cache");
    CHECK_INT(sl_redis_url_parse(text, &url, why, sizeof(why)), -SL_EINVAL);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"good_urls_are_taken_apart", good_urls_are_taken_apart},
        {"bad_urls_are_named_without_the_password", bad_urls_are_named_without_the_password},
        {"names_that_are_too_long_are_refused", names_that_are_too_long_are_refused},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
