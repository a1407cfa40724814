/*
 * The PBKDF2-HMAC-SHA1 vectors of RFC 6070 (less the one of 2^24 rounds), through the very call that libzfs makes.
 * Ends with 0 when all hold and a wrong password gives another key.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

static const struct vector {
	const char *password, *salt;
	int password_length, salt_length, rounds, length;
	unsigned char key[25];
} vectors[] = {
	{ "password", "salt", 8, 4, 1, 20,
	    { 0x0c, 0x60, 0xc8, 0x0f, 0x96, 0x1f, 0x0e, 0x71, 0xf3, 0xa9,
	      0xb5, 0x24, 0xaf, 0x60, 0x12, 0x06, 0x2f, 0xe0, 0x37, 0xa6 } },
	{ "password", "salt", 8, 4, 2, 20,
	    { 0xea, 0x6c, 0x01, 0x4d, 0xc7, 0x2d, 0x6f, 0x8c, 0xcd, 0x1e,
	      0xd9, 0x2a, 0xce, 0x1d, 0x41, 0xf0, 0xd8, 0xde, 0x89, 0x57 } },
	{ "password", "salt", 8, 4, 4096, 20,
	    { 0x4b, 0x00, 0x79, 0x01, 0xb7, 0x65, 0x48, 0x9a, 0xbe, 0xad,
	      0x49, 0xd9, 0x26, 0xf7, 0x21, 0xd0, 0x65, 0xa4, 0x29, 0xc1 } },
	{ "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 24, 36, 4096, 25,
	    { 0x3d, 0x2e, 0xec, 0x4f, 0xe4, 0x1c, 0x84, 0x9b, 0x80, 0xc8, 0xd8, 0x36, 0x62,
	      0xc0, 0xe4, 0x4a, 0x8b, 0x29, 0x1a, 0x96, 0x4c, 0xf2, 0xf0, 0x70, 0x38 } },
	{ "pass\0word", "sa\0lt", 9, 5, 4096, 16,
	    { 0x56, 0xfa, 0x6a, 0xa7, 0x55, 0x48, 0x09, 0x9d,
	      0xcc, 0x37, 0xd7, 0xf0, 0x34, 0x25, 0xe0, 0xc3 } },
};

static int
derive(const struct vector *v, const char *password, unsigned char *key)
{
	return (PKCS5_PBKDF2_HMAC_SHA1(password, v->password_length, (const unsigned char *)v->salt, v->salt_length,
	    v->rounds, v->length, key));
}

int
main(void)
{
	unsigned char key[25];
	int bad = 0;

	for (size_t i = 0; i < sizeof (vectors) / sizeof (vectors[0]); i++) {
		const struct vector *v = &vectors[i];
		if (derive(v, v->password, key) != 1 || memcmp(key, v->key, v->length) != 0) {
			printf("vector %zu: wrong key\n", i + 1);
			bad = 1;
		}
	}
	if (derive(&vectors[0], "passw0rd", key) != 1 || memcmp(key, vectors[0].key, vectors[0].length) == 0) {
		printf("a wrong password gives the same key\n");
		bad = 1;
	}
	return (bad);
}
