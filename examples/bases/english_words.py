"""English words of the maintenance trade with the short forms that are in general use.

Nothing here comes from a particular company's records.
"""

from __future__ import annotations

from typing import Final


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _split_pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = (pair.strip().split("=") for pair in text.replace("\n", " ").split(","))
    return tuple((short, full) for short, full in pairs)


WORDS: Final = _split(
    """
    replace repair inspect inspection service check adjust clean fit fitted remove install change overhaul
    rebuild weld investigate test calibrate lubricate grease tighten align rectify drain refill flush top modify
    manufacture paint blast recharge reseal rewire reset secure supply transport wash weigh sample monitor
    measure mark mount move order damaged broken cracked worn leaking leak loose missing bent burnt blown
    blocked bulged burst corroded dirty dry faulty failed failure fault flat frozen hot jammed low high noisy
    overheating perished rusted seized slipping stuck sticking torn tripping unserviceable vibrating weeping
    working intermittent erratic excessive defective engine motor pump hose valve cylinder bearing seal gasket
    filter belt pulley roller idler gearbox gear shaft coupling brake clutch transmission differential axle
    wheel tyre rim stud bolt nut pin bush bracket plate guard cover door window windscreen mirror wiper seat
    cabin ladder handrail step light lamp globe horn alarm beacon camera radio antenna battery alternator
    starter cable harness wiring plug connector relay fuse switch sensor solenoid coil controller display screen
    panel module contactor breaker isolator transformer generator inverter capacitor resistor rectifier radiator
    fan coolant condenser compressor evaporator conditioner heater thermostat temperature pressure level flow
    gauge meter tank reservoir sump line pipe fitting elbow flange joint adapter strainer nozzle injector turbo
    exhaust muffler manifold intake fuel oil air water gas steam dust hydraulic pneumatic electrical mechanical
    structural suspension strut spring shock accumulator steering linkage rod arm boom stick bucket tooth teeth
    lip shroud adaptor blade edge cutting ripper track shoe grouser sprocket undercarriage frame chassis body
    tray canopy hoist winch rope chain hook crane truck excavator dozer grader loader scraper drill dragline
    shovel conveyor crusher feeder chute hopper stacker reclaimer mill cyclone thickener agitator sampler tower
    skirt liner wear bar bolt-on front rear left right bottom upper lower inner outer side hand centre number
    position main auxiliary emergency primary secondary final drive swing propel travel slew lift tilt dump park
    hold ground high-pressure voltage amp volt hour week month day year annual weekly monthly daily shift
    planned shutdown breakdown call-out condition monitoring report required request parts labour workshop
    warehouse contractor operator fitter electrician boilermaker crew and or the of to on in at for from with
    not no is are has was will won't needs need out off up down over under between near inside outside new old
    spare used all both each more less too very one two three fire suppression extinguisher safety guardrail
    walkway platform access lockout tag system systems unit units cooling lubrication greasing autogreaser
    auto-lube control circuit return feed discharge suction delivery noise vibration smoke smell fumes heat
    crack cracks leaks bolts hoses tyres lights pins plates seals filters belts rollers brakes bearings cables
    lines pipes wheels cylinders pumps motors valves fans guards steps steer stop start run running stops starts
    runs lost losing loss gone drops drop sinking drifting pulling dragging squealing knocking grinding rattling
    surging hunting dripping spraying smoking sparking arcing flashing universal telescopic variable fixed
    rotating torque converter turbine governor throttle pedal lever joystick swivel slip ring brush brushes
    field armature commutator winding insulation earth leakage phase lubricant additive sealant adhesive bulk
    drum nipple point points pod pods pack rack trailer tanker tool tools adjustment alignment replacement
    assembly removal installation calibration communication communications computer program programs software
    download data signal network receiver transmitter remote pendant keypad button key lock handle hinge latch
    catch strap clamp clip tie tape sleeve spacer shim washer circlip o-ring bead pre-service midlife component
    components major minor special general fabricate fabrication machine machining lifting rigging sling shackle
    jack stand stands block blocks chock chocks nuts locknut thread stripped tensioner guide deflector lagging
    splice take-up tail head gravity bend snub carry trough
    """
)

SHORT_FORMS: Final = _split_pairs(
    """
    repl=replace, rep=repair, hyd=hydraulic, cyl=cylinder, insp=inspection, svc=service, serv=service,
    eng=engine, mech=mechanical, elec=electrical, temp=temperature, press=pressure, assy=assembly, brg=bearing,
    brgs=bearings, trans=transmission, diff=differential, alt=alternator, batt=battery, cond=condition,
    pos=position, no=number, qty=quantity, rh=right hand, lh=left hand, r/h=right hand, l/h=left hand, rhs=right
    hand side, lhs=left hand side, fr=front right, rr=rear right, a/c=air conditioner, c/o=change out,
    u/s=unserviceable, w/shop=workshop, &=and, hr=hour, hrs=hours, wk=week, mth=month, min=minute, max=maximum,
    std=standard, req=required, reqd=required, adj=adjust, chk=check, inv=investigate, invest=investigate,
    rect=rectify, fab=fabricate, mod=modify, maint=maintenance, sched=scheduled, gen=generator, comp=compressor,
    cont=control, ctrl=control, sw=switch, sol=solenoid, sens=sensor, conn=connector, wrg=wiring,
    lub=lubrication, lube=lubrication, susp=suspension, accum=accumulator, acc=accumulator, rad=radiator,
    rev=reverse, fwd=forward, ext=extinguisher, supp=suppression, u/c=undercarriage, w/screen=windscreen,
    p/brake=park brake, g/box=gearbox, t/conv=torque converter, conv=conveyor, rlr=roller, tyr=tyre, whl=wheel,
    brkt=bracket, brkn=broken, dmgd=damaged, lkg=leaking, lkn=leaking, frt=front, rt=right, lft=left,
    btm=bottom, lwr=lower, upr=upper, aux=auxiliary, emerg=emergency, prim=primary, sec=secondary, hp=high
    pressure, lp=low pressure, hv=high voltage, lv=low voltage, n/w=not working, o/heat=overheat,
    s/down=shutdown, b/down=breakdown, op=operator, comms=communications, prog=program, cct=circuit, cb=circuit
    breaker, vlv=valve, flt=filter, fltr=filter, hse=hose, tk=tank, mtr=motor, pmp=pump, blt=bolt, cab=cabin,
    steer=steering, ind=indicator, turb=turbo, rpm=RPM, plc=PLC, abs=ABS, led=LED, gps=GPS, wont=won't,
    approx=approximately, mtg=mounting, clnt=coolant, cool=coolant, exh=exhaust
    """
)

JOINED: Final = _split(
    """
    gearbox workshop windscreen handrail walkway undercarriage handbrake dashboard headlight breakdown shutdown
    turntable wheelnut driveline tailgate sunvisor hubcap guardrail camshaft crankshaft flywheel overheating
    """
)
