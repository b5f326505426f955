/*
 * The C library's functions at the versions that glibc 2.28 has. The libraries of users are compiled with `-include` of
 * this file, so that they load with 2.28 too if a newer glibc links them. The build refuses a library that needs a
 * newer version: then its function belongs here, or must be looked up with dlsym.
 *
 * The functions were in libdl and libpthread, which the libraries therefore need by name. Newer glibcs keep both as
 * empty libraries.
 */
#if defined(__x86_64__)
#define FIRST "GLIBC_2.2.5"
#define NEXT_OF_DL "GLIBC_2.3.3"
#elif defined(__aarch64__)
#define FIRST "GLIBC_2.17"
#define NEXT_OF_DL FIRST
#endif
#ifdef FIRST
#define AT(name, version) __asm__(".symver " #name "," #name "@" version)

AT(dladdr, FIRST);
AT(dlerror, FIRST);
AT(dlsym, FIRST);
AT(dlvsym, FIRST);
AT(dladdr1, NEXT_OF_DL);
AT(dlinfo, NEXT_OF_DL);
AT(pthread_attr_getguardsize, FIRST);
AT(pthread_attr_getstack, FIRST);
AT(pthread_attr_getstacksize, FIRST);
AT(pthread_attr_setguardsize, FIRST);
AT(pthread_attr_setstacksize, FIRST);
AT(pthread_getattr_np, FIRST);
AT(pthread_getcpuclockid, FIRST);
AT(pthread_key_create, FIRST);
AT(pthread_setspecific, FIRST);
AT(pthread_sigmask, FIRST);

#undef FIRST
#undef NEXT_OF_DL
#undef AT
#endif
