// Which of two tellings of one migration is the older one: a migration only goes forward.

import type { Migration } from '../api/types';

type Progress = Pick<Migration, 'outcome' | 'attempt' | 'phases'>;

export function isOvertaken(told: Progress, present: Progress): boolean {
  if ((told.outcome == null) !== (present.outcome == null)) return told.outcome == null;
  if (told.attempt !== present.attempt) return told.attempt < present.attempt;
  return told.phases.length < present.phases.length;
}
