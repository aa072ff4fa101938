/* A libcurl that was built without HTTP/2, as far as a program can tell: it hands everything on to
 * the one that OLD_LIBCURL names, but the versions of HTTP that need nghttp2. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>

enum { HTTP_VERSION = 84, HTTP_VERSION_2 = 3, UNSUPPORTED_PROTOCOL = 1 };

typedef void *(*function)(void *, void *, void *, void *);

static function find(const char *name) {
  void *library = dlopen(getenv("OLD_LIBCURL"), RTLD_NOW | RTLD_LOCAL);
  void *symbol = library == NULL ? NULL : dlsym(library, name);
  function found;
  if (symbol == NULL) abort();
  *(void **)(void *)&found = symbol;
  return found;
}

#define HAND_ON(name)                                                                              \
  void *name(void *a, void *b, void *c, void *d);                                                  \
  void *name(void *a, void *b, void *c, void *d) { return find(#name)(a, b, c, d); }

HAND_ON(curl_global_init)
HAND_ON(curl_easy_init)
HAND_ON(curl_easy_getinfo)
HAND_ON(curl_easy_cleanup)
HAND_ON(curl_easy_strerror)
HAND_ON(curl_slist_append)
HAND_ON(curl_slist_free_all)
HAND_ON(curl_multi_init)
HAND_ON(curl_multi_setopt)
HAND_ON(curl_multi_assign)
HAND_ON(curl_multi_add_handle)
HAND_ON(curl_multi_remove_handle)
HAND_ON(curl_multi_socket_action)
HAND_ON(curl_multi_info_read)
HAND_ON(curl_multi_cleanup)

void *curl_easy_setopt(void *easy, long option, void *value);
void *curl_easy_setopt(void *easy, long option, void *value) {
  int (*set)(void *, int, ...);
  function found = find("curl_easy_setopt");
  if ((int)option == HTTP_VERSION && (long)value >= HTTP_VERSION_2)
    return (void *)(long)UNSUPPORTED_PROTOCOL;
  *(function *)(void *)&set = found;
  return (void *)(long)set(easy, (int)option, value);
}
