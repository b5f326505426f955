/*
 * The row of the finding leak.
 */

export const leak = {
  severity: 'warning',
  needs: ['call'],
  title: 'an object existed when its program closed the device or ended',
  why: 'An object that the program does not destroy stays allocated as long as the device is open. If the program ends after an error or a refused call, and has made and changed no object since, its leaks are a line of that finding.',
  advice: 'destroy objects in reverse order of creation before ibv_close_device',
  libraryAdvice: 'close each object, or declare it with `using`; `await device.close()` closes what is left',
} as const
