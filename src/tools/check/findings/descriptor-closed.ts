/*
 * Finding descriptor-closed: a program closes the descriptor of a context. Its objects end with it, and are no leaks.
 */
import type { Detector, DetectorServices } from '../detector.ts'

export const createDescriptorDetector = (services: DetectorServices): Detector => ({
  on: {
    closedDescriptor(event) {
      const { context, descriptor, program, device } = event
      services.closedContexts.add(context)
      services.report(
        'descriptor-closed',
        { ...event, action: 'closed' },
        {
          text: `process ${program?.pid ?? '?'} closes descriptor ${descriptor}, that of its context of ${device}, by close: the device destroys all objects of the context, and later calls fail`,
        },
      )
    },
  },
})
