/*
 * The row of the finding leak.
 */

export const leak = {
  severity: 'warning',
  needs: ['call'],
  title: 'an object existed when its program closed the device or ended',
  why: 'An object that the program does not destroy stays allocated as long as the device is open. If the program ends because a call was refused, which is a finding of its own, its leaks are notes.',
  advice: 'destroy objects in reverse order of creation before ibv_close_device',
  libraryAdvice: 'close each object, or declare it with `using`; `await device.close()` closes what is left',
} as const
