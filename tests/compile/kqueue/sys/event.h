/* Just enough of kqueue's interface to check the syntax of what uses it, on systems without it. */
#ifndef KQUEUE_SYS_EVENT_H
#define KQUEUE_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

struct kevent {
  uintptr_t ident;
  short filter;
  unsigned short flags;
  unsigned int fflags;
  int64_t data;
  void *udata;
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_TIMER (-7)
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ONESHOT 0x0010
#define EV_SET(event, a, b, c, d, e, f)                                                            \
  do {                                                                                             \
    struct kevent *kevent_ = (event);                                                              \
    kevent_->ident = (a);                                                                          \
    kevent_->filter = (b);                                                                         \
    kevent_->flags = (c);                                                                          \
    kevent_->fflags = (d);                                                                         \
    kevent_->data = (e);                                                                           \
    kevent_->udata = (f);                                                                          \
  } while (0)

int kqueue(void);
int kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout);

#endif
