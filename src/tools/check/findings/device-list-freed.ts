/*
 * Finding device-list-freed: a program opens a device after it has freed the list that it has it from.
 */
import type { Detector, DetectorServices } from '../detector.ts'
import { moment } from '../objects.ts'

export const createDeviceListDetector = (services: DetectorServices): Detector => ({
  on: {
    openedFreed(event) {
      services.report(
        'device-list-freed',
        { ...event, action: 'opened' },
        {
          text: `${event.device} was opened (ibv_open_device) after the list with it was freed (ibv_free_device_list)`,
          moments: [moment('freed', event.freedAt, event.freedStack)],
        },
      )
    },
  },
})
