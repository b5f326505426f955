/*
 * Finding leak: an object that exists when its program closes the device or ends.
 */
import type { Detector, DetectorServices } from '../detector.ts'
import { isVerbsClass, participles } from '../objects.ts'

export const createLeakDetector = (services: DetectorServices): Detector => {
  /** The program ends without having closed its devices: then open objects of the library are leaks too. */
  let isExiting = false
  return {
    on: {
      exiting() {
        isExiting = true
      },
      destroyed(call, object) {
        const isLeft = call.why === 'close' && !services.closedContexts.has(call.context)
        if (!isLeft || !isVerbsClass(object.class) || object.isInternal) return
        // The library documents that a device's close closes its objects.
        const isDocumented = object.isOfLibrary && !isExiting
        const { stack, action } = object.creation
        services.report(
          'leak',
          { ...call, stack, action },
          {
            text: `${object.name} was never ${participles(call.class).destroyed}`,
            left: object.kind,
            ...(isDocumented && { severity: 'note' }),
            ...(call.wasKilled && { wasKilled: true }),
            ...(!isDocumented && !call.wasKilled && { follows: services.consequences.mistakeOf(object.program?.pid) }),
          },
        )
      },
    },
  }
}
