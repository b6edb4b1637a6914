/** Before the first test: the guest's image. After the last: the table of outcomes. */

import type { TestProject } from 'vitest/node';
import { buildImage, type GuestImage } from './image/build.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    guestImage: GuestImage;
  }
}

export default async function setup(project: TestProject): Promise<() => void> {
  const image = await buildImage((line) => console.error(`rdma: ${line}`));
  project.provide('guestImage', image);
  return () => {};
}
