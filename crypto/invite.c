/* SPDX-License-Identifier: Apache-2.0 */
/* The invite code: what a person types or pastes on a device so that it can enrol, as forgiving text.
 *
 * "linnet1-", then Crockford's base32 (crockford.com/base32.html: no I, L, O or U; read without regard to
 * case, I and L as 1, O as 0) of token id, token secret, coordinator key, authority key and five bytes of
 * H("invit", these): 117 bytes are 187.2 symbols, so the last symbol holds one bit of data and four zero
 * bits. Dashes and white space are for the eye. A token is a secret, so symbols are looked up without an
 * index that depends on them. What is not here: whether the token was used or has expired; only its issuer
 * knows. */
#include "linnet/identity.h"

#include <sodium.h>

#define PAYLOAD_BYTES (LINNET_TOKEN_ID_BYTES + LINNET_TOKEN_SECRET_BYTES + 2 * LINNET_PUBLIC_KEY_BYTES)
#define CHECK_BYTES 5
#define CODE_BYTES (PAYLOAD_BYTES + CHECK_BYTES)
#define CODE_SYMBOLS ((CODE_BYTES * 8 + 4) / 5)
#define GROUP_SYMBOLS 8
#define PREFIX "linnet1"

_Static_assert(sizeof(PREFIX) + CODE_SYMBOLS + (CODE_SYMBOLS + GROUP_SYMBOLS - 1) / GROUP_SYMBOLS <=
                   LINNET_INVITE_TEXT_MAX,
               "prefix, symbols, a dash before every group and the end fit");

static const char ALPHABET[32] = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A',
                                  'B', 'C', 'D', 'E', 'F', 'G', 'H', 'J', 'K', 'M', 'N',
                                  'P', 'Q', 'R', 'S', 'T', 'V', 'W', 'X', 'Y', 'Z'};

/* All ones where a == b, else 0, for values below 256. */
static unsigned equal_mask(unsigned a, unsigned b)
{
    return ~(0u - (((a ^ b) + 0xffu) >> 8));
}

static char symbol_of(unsigned value)
{
    unsigned symbol = 0;
    for (unsigned v = 0; v < 32; v++)
        symbol |= (unsigned char)ALPHABET[v] & equal_mask(v, value);
    return (char)symbol;
}

/* The value of a symbol, 32 or more where it is none. */
static unsigned value_of(char c)
{
    unsigned symbol = (unsigned char)c;
    unsigned is_lower = (unsigned)(symbol >= 'a') & (unsigned)(symbol <= 'z');
    symbol -= 32u * is_lower;
    unsigned is_one = equal_mask(symbol, 'I') | equal_mask(symbol, 'L');
    unsigned is_zero = equal_mask(symbol, 'O');
    symbol = (symbol & ~is_one & ~is_zero) | ('1' & is_one) | ('0' & is_zero);
    unsigned value = 0, found = 0;
    for (unsigned v = 0; v < 32; v++) {
        unsigned hit = equal_mask(symbol, (unsigned char)ALPHABET[v]);
        value |= v & hit;
        found |= hit;
    }
    return value | (32u & ~found);
}

static void checksum(const uint8_t payload[PAYLOAD_BYTES], uint8_t ret_check[CHECK_BYTES])
{
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_INVITE, payload, PAYLOAD_BYTES);
    memcpy(ret_check, hash.bytes, CHECK_BYTES);
}

void linnet_invite_write(const linnet_invite *invite, char ret_text[LINNET_INVITE_TEXT_MAX])
{
    uint8_t code[CODE_BYTES];
    memcpy(code, invite->token.id, LINNET_TOKEN_ID_BYTES);
    memcpy(code + 16, invite->token.secret, LINNET_TOKEN_SECRET_BYTES);
    memcpy(code + 48, invite->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    memcpy(code + 80, invite->authority.bytes, LINNET_PUBLIC_KEY_BYTES);
    checksum(code, code + PAYLOAD_BYTES);

    char *text = ret_text;
    memcpy(text, PREFIX, sizeof(PREFIX) - 1);
    text += sizeof(PREFIX) - 1;
    unsigned bits = 0, n_bits = 0;
    size_t at = 0;
    for (size_t i = 0; i < CODE_SYMBOLS; i++) {
        if (i % GROUP_SYMBOLS == 0)
            *text++ = '-';
        if (n_bits < 5) {
            bits = bits << 8 | (at < CODE_BYTES ? code[at] : 0u);
            at++;
            n_bits += 8;
        }
        n_bits -= 5;
        *text++ = symbol_of(bits >> n_bits & 31);
    }
    *text = '\0';
    sodium_memzero(code, sizeof(code));
}

static bool is_separator(char c)
{
    return c == '-' || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The value of the next symbol that is no separator, 32 or more at the end and at a foreign character. */
static unsigned next_value(const char **text)
{
    while (is_separator(**text))
        (*text)++;
    unsigned value = value_of(**text);
    if (value < 32)
        (*text)++;
    return value;
}

/* Prefix, symbols, end. The prefix forgives the same slips as the symbols. */
static linnet_status read_code(const char *text, uint8_t code[CODE_BYTES])
{
    for (const char *prefix = PREFIX; *prefix; prefix++)
        if (next_value(&text) != value_of(*prefix))
            return LINNET_ERR_FORMAT;
    unsigned bits = 0, n_bits = 0;
    size_t at = 0;
    for (size_t i = 0; i < CODE_SYMBOLS; i++) {
        unsigned value = next_value(&text);
        if (value >= 32)
            return LINNET_ERR_FORMAT;
        bits = bits << 5 | value;
        n_bits += 5;
        if (n_bits >= 8) {
            n_bits -= 8;
            code[at++] = (uint8_t)(bits >> n_bits);
        }
    }
    while (is_separator(*text))
        text++;
    bool padding_is_zero = (bits & ((1u << n_bits) - 1)) == 0;
    return *text == '\0' && padding_is_zero ? LINNET_OK : LINNET_ERR_FORMAT;
}

linnet_status linnet_invite_read(const char *text, linnet_invite *ret_invite)
{
    uint8_t code[CODE_BYTES] = {0}, check[CHECK_BYTES];
    linnet_status status = read_code(text, code);
    if (status != LINNET_OK)
        goto done;
    checksum(code, check);
    if (sodium_memcmp(check, code + PAYLOAD_BYTES, CHECK_BYTES) != 0) {
        status = LINNET_ERR_FORMAT;
        goto done;
    }
    memcpy(ret_invite->token.id, code, LINNET_TOKEN_ID_BYTES);
    memcpy(ret_invite->token.secret, code + 16, LINNET_TOKEN_SECRET_BYTES);
    memcpy(ret_invite->coordinator.bytes, code + 48, LINNET_PUBLIC_KEY_BYTES);
    memcpy(ret_invite->authority.bytes, code + 80, LINNET_PUBLIC_KEY_BYTES);
done:
    sodium_memzero(code, sizeof(code));
    return status;
}
